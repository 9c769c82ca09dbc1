"""Every optimizer that optax and optax.contrib have: read and certified, or refused by name."""

import optax
import pytest
from optax import contrib

import igr
from igr.tracing import UnreadableOptimizerError, read_optimizer
from tests.quick import quick

TREES, TERMS, RULES = "LinearMethod", "ElementwiseMethod", "RuleMethod"

# name -> (make, kind, whether its jumps have to be smoothed)
DERIVED = {
    "sgd": (optax.sgd, TREES, False),
    "optimistic_gradient_descent": (optax.optimistic_gradient_descent, TREES, False),
    "adam": (optax.adam, TERMS, False),
    "adamw": (optax.adamw, TERMS, False),
    "nadam": (optax.nadam, TERMS, False),
    "nadamw": (optax.nadamw, TERMS, False),
    "adabelief": (optax.adabelief, TERMS, False),
    "adan": (optax.adan, TERMS, False),
    "rmsprop": (optax.rmsprop, TERMS, False),
    "radam": (optax.radam, TERMS, False),
    "optimistic_adam": (lambda h: optax.optimistic_adam(h), TERMS, False),
    "optimistic_adam_v2": (lambda h: optax.optimistic_adam_v2(h), TERMS, False),
    "adagrad": (optax.adagrad, TERMS, False),
    "adadelta": (optax.adadelta, TERMS, False),
    "yogi": (optax.yogi, TERMS, True),
    "amsgrad": (optax.amsgrad, TERMS, True),
    "adamax": (optax.adamax, TERMS, True),
    "adamaxw": (optax.adamaxw, TERMS, True),
    "lion": (optax.lion, TERMS, True),
    "sign_sgd": (optax.sign_sgd, TERMS, True),
    "signum": (optax.signum, TERMS, True),
    "acprop": (contrib.acprop, TERMS, False),
    "ademamix": (contrib.ademamix, TERMS, False),
    "simplified_ademamix": (contrib.simplified_ademamix, TERMS, False),
    "adopt": (contrib.adopt, TERMS, True),
    "madgrad": (contrib.madgrad, TERMS, False),
    "cocob": (lambda h: contrib.cocob(h), TERMS, True),
    "schedule_free_sgd": (contrib.schedule_free_sgd, TERMS, False),
    "schedule_free_adamw": (contrib.schedule_free_adamw, TERMS, False),
    "adafactor": (optax.adafactor, RULES, False),
    "fromage": (optax.fromage, RULES, False),
    "lamb": (optax.lamb, RULES, False),
    "lars": (optax.lars, RULES, False),
    "novograd": (optax.novograd, RULES, False),
    "sm3": (optax.sm3, RULES, False),
    "muon": (contrib.muon, RULES, False),
    "prodigy": (contrib.prodigy, RULES, False),
    "dadapt_adamw": (contrib.dadapt_adamw, RULES, False),
    "dog": (contrib.dog, RULES, False),
    "dowg": (contrib.dowg, RULES, False),
    "mechanize": (lambda h: contrib.mechanize(optax.sgd(h)), RULES, False),
}

REFUSED = {
    "lbfgs": (optax.lbfgs, "asks for 'value'.* besides the gradient"),
    "polyak_sgd": (optax.polyak_sgd, "asks for 'value' besides the gradient"),
    "momo": (contrib.momo, "asks for 'value' besides the gradient"),
    "momo_adam": (contrib.momo_adam, "asks for 'value' besides the gradient"),
    "sophia": (contrib.sophia, "update asks for obj_fn"),
    "noisy_sgd": (lambda h: optax.noisy_sgd(h, key=0), "draws at random"),
    "dpsgd": (lambda h: contrib.dpsgd(h, 1.0, 0.1, 0), "draws at random"),
    "galore": (contrib.galore, "only every so many steps"),
    "sam": (
        lambda h: contrib.sam(optax.sgd(h), optax.chain(contrib.normalize(), optax.sgd(0.05))),
        "different steps in turn",
    ),
    "rprop": (optax.rprop, "has a jump or a kink"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_are_here():
    assert len(DERIVED) >= 40
    assert len(DERIVED) + len(REFUSED) == 51
    assert all(hasattr(optax, n) or hasattr(contrib, n) for n in (*DERIVED, *REFUSED))


SHOWN = (
    "sgd", "adam", "adamw", "nadam", "adabelief", "rmsprop", "radam", "adagrad", "lion",
    "sign_sgd", "acprop", "schedule_free_sgd", "fromage", "novograd", "dog", "muon",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", quick(list(DERIVED), *SHOWN))
def test_read(name):
    """As the kind it is; without smoothing a jump is refused by name."""
    make, kind, jumps = DERIVED[name]
    if jumps:
        with pytest.raises(UnreadableOptimizerError, match="jump or a kink"):
            read_optimizer(make)
    reading = read_optimizer(make, smooth=1e-2 if jumps else None)
    assert type(reading.method).__name__ == kind
    assert set(reading.why) == set(reading.method.kept)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", DERIVED)
def test_certified_against_its_own_steps(name):
    make, _, jumps = DERIVED[name]
    igr.from_optax(make, smooth=1e-2 if jumps else None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", DERIVED)
def test_certified_slopes(name):
    """One step of its own code against the flow over h: p + 2 at orders 0 and 1."""
    make, _, jumps = DERIVED[name]
    certificate = igr.certify(make, smooth=1e-2 if jumps else None)
    for order, slope in certificate.observed.items():
        assert abs(slope - (order + 2)) < 0.1, (slope.hs, slope.errors)


@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    make, says = REFUSED[name]
    with pytest.raises(UnreadableOptimizerError, match=says):
        igr.from_optax(make)
