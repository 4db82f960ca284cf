"""`python -m neuromorphic`: a trained run is compiled, exported, or refused with one line."""

import pytest

import train
from neuromorphic.__main__ import main
from tests.test_command_line import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, hardly trained."""
    folder = tmp_path_factory.mktemp("runs") / "spiking"
    assert train.main([*TINY, "sequence.games=[catch]", f"run={folder}"]) == 0
    return folder


@pytest.mark.parametrize("core", ["loihi1", "loihi2", "ideal"])
def test_compile_prints_a_table_and_draws(run, capsys, core):
    assert main(["compile", f"run={run}", f"core={core}"]) == 0
    out = capsys.readouterr().out
    assert "7,776 neurons" in out  # 32 x 15 x 15 and 64 x 3 x 3
    assert (run / "report" / f"placement_{core}.png").stat().st_size > 3000


def test_export_reads_its_file_again(run, capsys, tmp_path):
    assert main(["export", f"run={run}", f"out={tmp_path / 'encoder.nir'}"]) == 0
    assert "spikes of 64 decisions are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["draw"], "'draw' is no command"),
        (["compile", "core=loihi1"], "needs run="),
        (["compile", "run=nowhere"], "run=nowhere: no run there"),
        (["compile", "run={spiking}", "core=loihi9"], "core=loihi9 is not known"),
        (["compile", "run={spiking}", "cores=1"], "no key 'cores'"),
        (["compile", "run={spiking}", "weight_bits=x"], "weight_bits=x is not a number"),
        (["compile", "run={spiking}", "weight_bits=9"], "outside 2..8"),
        (["compile", "run={spiking}", "out=place.txt"], "the picture is a .png"),
        (["export", "run={spiking}"], "export needs out="),
        (["export", "run={spiking}", "out=x.nir", "dt=0"], "must be a positive number"),
    ],
)
def test_bad_input_is_one_line(run, capsys, argv, said):
    assert main([word.format(spiking=run) for word in argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
