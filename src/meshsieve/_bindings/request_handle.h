// A RequestBatch together with the Python arrays that it points into.
#pragma once

#include <pybind11/numpy.h>

#include <memory>
#include <string>

#include "meshsieve/request_batch.h"

struct RequestHandle {
  meshsieve::RequestBatch batch;
  pybind11::list owners;
};

// A capsule over the batch for the Cython modules; the RequestHandle must outlive what is read through it.
inline constexpr const char* kRequestCapsule = "meshsieve.RequestBatch/1";

// A text column of the batch by the name that Python gives it. Raises ModelError for another name.
const meshsieve::TextColumn& text_of(const meshsieve::RequestBatch& batch, const std::string& name);
