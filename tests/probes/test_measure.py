import numpy as np
import pytest
from policies import Kept, model_state

from probes.errors import ProbeFailure, UsageError
from probes.measure import measure
from probes.registry import Column, Probe, get_probe, list_columns, list_probes
from probes.table import LayerTable, depth_correlation, varies


def probe_of(function, name="own"):
    return Probe(name, "probe", (Column("value", "1", "a test"),), "none", "here", function)


def test_every_probe_is_listed_with_its_facts():
    for probe in list_probes():
        assert probe.cost
        assert probe.source
        for column in probe.columns:
            assert column.unit
            assert column.meaning
    assert [p.name for p in list_probes("static")] == ["depth", "weights"]


def test_unknown_probe():
    with pytest.raises(UsageError, match="Unknown probe 'gradient'. Did you mean 'gradients'"):
        get_probe("gradient")


def test_all_probes_fill_all_their_columns(tiny, rollouts):
    before = model_state(tiny.model)
    table = measure(list_probes(), policy=tiny, rollouts=rollouts)
    assert table.failures == {}
    assert list(table.columns) == list(list_columns())
    assert model_state(tiny.model) == before


def test_failures_are_reasons_and_the_rest_goes_on(tiny, rollouts):
    def fails(measurement):
        raise ProbeFailure("no such thing here")

    def runs_out(measurement):
        raise RuntimeError("out of memory\nand a long tail")

    table = measure(
        [
            probe_of(runs_out, "big"),
            probe_of(fails),
            probe_of(lambda m: {"value": [np.nan] * 6}, "bad"),
            get_probe("depth"),
        ],
        policy=tiny,
        rollouts=rollouts,
    )
    assert table.failures == {
        "big": "RuntimeError: out of memory",
        "own": "no such thing here",
        "bad": "column 'value' is not finite at layers [0, 1, 2, 3, 4, 5]",
    }
    assert list(table.columns) == ["relative_depth"]


@pytest.mark.parametrize("ending", [TypeError, KeyboardInterrupt])
def test_other_errors_end_the_run_and_leave_the_policy_as_found(tiny, rollouts, ending):
    def breaks(measurement):
        next(measurement.tape.backward())
        raise ending

    before = model_state(tiny.model)
    with pytest.raises(ending):
        measure([probe_of(breaks, "gradients")], policy=tiny, rollouts=rollouts)
    assert model_state(tiny.model) == before


def test_finished_probes_are_recalled(tiny, rollouts):
    calls, memory = [], Kept()
    own = probe_of(lambda m: calls.append(1) or {"value": np.arange(6.0)})
    for key in ("a", "a", "b"):
        table = measure([own], policy=tiny, rollouts=rollouts, memory=memory, key=key)
        np.testing.assert_array_equal(table.columns["value"], np.arange(6.0))
    assert len(calls) == 2


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, np.inf, 2.0]])
def test_table_refuses_bad_columns(values):
    with pytest.raises(ProbeFailure, match="column 'x'"):
        LayerTable(3).add({"x": np.array(values)})


def test_variation_and_depth_correlation():
    assert depth_correlation(np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    assert depth_correlation(np.ones(3)) is None
    assert not varies(np.array([1.0, 1.0 + 1e-12]))
    assert not varies(np.zeros(3))
