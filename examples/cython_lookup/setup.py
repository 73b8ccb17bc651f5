"""python setup.py build_ext --inplace, beside an installed (or built in place) meshsieve."""

from Cython.Build import cythonize
from setuptools import Extension, setup

from meshsieve.headers import get_include

setup(
    name="count_hits",
    ext_modules=cythonize(
        Extension(
            "count_hits",
            ["count_hits.pyx"],
            include_dirs=[get_include()],
            extra_compile_args=["-std=c++20"],
            language="c++",
        )
    ),
)
