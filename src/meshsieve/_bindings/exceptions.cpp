// C++ exceptions become the Python classes of meshsieve/errors.py of the same name.
#include "meshsieve/errors.h"

#include "bindings.h"

namespace py = pybind11;

namespace {

void raise(const char* name, const std::exception& error) {
  const py::object cls = py::module_::import("meshsieve.errors").attr(name);
  PyErr_SetString(cls.ptr(), error.what());
}

}  // namespace

void bind_exceptions(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const meshsieve::ModelError& e) {
      raise("ModelError", e);
    } catch (const meshsieve::CompileError& e) {
      raise("CompileError", e);
    } catch (const meshsieve::BackendError& e) {
      raise("BackendError", e);
    } catch (const meshsieve::TableError& e) {
      raise("TableError", e);
    } catch (const meshsieve::BalanceError& e) {
      raise("BalanceError", e);
    } catch (const meshsieve::CaptureError& e) {
      raise("CaptureError", e);
    } catch (const meshsieve::FilterError& e) {
      raise("FilterError", e);
    }
  });
}
