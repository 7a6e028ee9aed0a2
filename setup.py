"""Builds the C node into the extension module `swarm._node`; everything else stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["swarm/_node_build.py:ffibuilder"])
