// Classifiers as bind_classifier.cpp and bind_live.cpp hand them to Python.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "meshsieve/classifier.h"

// For meshsieve._fast.Lookup. The layout version is part of the capsule's name, so that a _fast built against another
// core refuses it.
pybind11::capsule classifier_capsule(const std::shared_ptr<const meshsieve::Classifier>& classifier);

void bind_live(pybind11::module_& module);
