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


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    """The same with the encoder's ReLU twin."""
    folder = tmp_path_factory.mktemp("runs") / "conv"
    assert train.main([*TINY, "sequence.games=[catch]", "encoder=conv", f"run={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def mfec(tmp_path_factory):
    """An agent that has no encoder."""
    folder = tmp_path_factory.mktemp("runs") / "mfec"
    assert train.main([*TINY, "sequence.games=[catch]", "agent=mfec", f"run={folder}"]) == 0
    return folder


@pytest.mark.parametrize("core", ["loihi1", "loihi2", "ideal"])
def test_compile_prints_a_table_and_draws(run, capsys, core):
    assert main(["compile", f"run={run}", f"core={core}"]) == 0
    out = capsys.readouterr().out
    assert "7,776 neurons" in out  # 32 x 15 x 15 and 64 x 3 x 3
    most = 1 if core == "loihi1" else 2
    assert ("two synapses each" in out) == (most == 2)
    assert (run / "report" / f"placement_{core}_synapses{most}.png").stat().st_size > 3000


def test_pictures_of_one_and_two_synapses_stand_side_by_side(run, capsys):
    for synapses in (1, 2):
        assert main(["compile", f"run={run}", f"synapses={synapses}"]) == 0
        picture = run / "report" / f"placement_loihi2_synapses{synapses}.png"
        assert f"picture: {picture}" in capsys.readouterr().out
        assert picture.exists()


def test_a_run_named_alone_keeps_its_picture(run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    picture = run / "report" / "placement_loihi2_synapses2.png"
    picture.unlink(missing_ok=True)
    assert main(["compile", "run=mine"]) == 0
    assert picture.exists()
    assert not (tmp_path / "mine").exists()


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
        (["compile", "run={spiking}", "core=loihi1", "core=ideal"], "core= is given twice"),
        (["compile", f"run={'x' * 300}"], "File name too long"),
        (["compile", "run={spiking}", "weight_bits=x"], "weight_bits=x is not a number"),
        (["compile", "run={spiking}", "weight_bits=9"], "outside 2..8"),
        (["compile", "run={spiking}", "out=place.txt"], "the picture is a .png"),
        (["compile", "run={spiking}", "weight_bits=inf"], "weight_bits=inf is not a number"),
        (["compile", "run={spiking}", "weight_bits=nan"], "weight_bits=nan is not a number"),
        (["compile", "run={spiking}", "weight_bits=7.5"], "weight_bits=7.5 is not a whole number"),
        (["compile", "run={spiking}", "chips=0"], "chips=0 must be at least 1"),
        (["compile", "run={spiking}", "core=ideal", "chips=3"], "chips=3: core=ideal"),
        (["compile", "run={spiking}", "core=loihi1", "synapses=2"], "set synapses=1"),
        (["compile", "run={spiking}", "out={spiking}/config.yaml/x.png"], "cannot be written ("),
        (["compile", "run={spiking}", "out={folder}"], "cannot be written (Is a directory)"),
        (["compile", "run={mfec}"], "its agent has no encoder"),
        (["compile", "run={conv}"], "the event core needs encoder.kind=spiking"),
        (["export", "run={conv}", "out={spiking}/x.nir"], "the event core needs encoder.kind="),
        (["export", "run={spiking}"], "export needs out="),
        (["export", "run={spiking}", "out={folder}/no/x.nir"], "cannot be written (No such file"),
        (["export", "run={spiking}", "out={folder}"], "cannot be written (Is a directory)"),
        (["export", "run={spiking}", "out=x.nir", "dt=0"], "must be a positive number"),
    ],
)
def test_bad_input_is_one_line(run, conv, mfec, tmp_path, capsys, argv, said):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    names = {"spiking": run, "conv": conv, "mfec": mfec, "folder": folder}
    assert main([word.format(**names) for word in argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_interrupt_is_one_line(run, capsys, monkeypatch):
    def stop(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("neuromorphic.__main__.compile_run", stop)
    assert main(["compile", f"run={run}"]) == 130
    error = capsys.readouterr().err
    assert error == "interrupted: give the same command again\n"
