"""The cases, each built once."""

from functools import cache

import pytest

from tests.curvature.cases import BUILDERS
from tests.quick import quick


@cache
def built(name):
    return BUILDERS[name]()


@pytest.fixture(
    params=quick(
        list(BUILDERS),
        "linear_regression",
        "saddle",
        "equinox_mlp",
    )
)
def case(request):
    return built(request.param)


@pytest.fixture
def case_named():
    return built
