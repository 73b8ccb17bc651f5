// One function a subject: each bind_*.cpp adds its classes to the module that module.cpp makes.
#pragma once

#include <pybind11/pybind11.h>

void bind_exceptions(pybind11::module_& module);
void bind_model(pybind11::module_& module);
void bind_classifier(pybind11::module_& module);
void bind_saved(pybind11::module_& module);
void bind_capture(pybind11::module_& module);
void bind_balance(pybind11::module_& module);
void bind_regex(pybind11::module_& module);
void bind_flows(pybind11::module_& module);
void bind_report(pybind11::module_& module);
void bind_prefix(pybind11::module_& module);
void bind_requests(pybind11::module_& module);
void bind_indexes(pybind11::module_& module);
void bind_http(pybind11::module_& module);
void bind_routes(pybind11::module_& module);
