"""A setting is written once: its flag, its key in a file, its range and its default agree, and layers win in order."""

import dataclasses
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ball_features import ExtractConfig, FitConfig, HeadConfig, extract, read_cache
from ball_features.cli import app
from ball_features.cli.layers import flag
from ball_features.cli.presets import PRESETS
from ball_features.cli.root import main
from ball_features.config import Saving
from ball_features.config.fields import REQUIRED, Config, flat_name, option, options_of
from ball_features.config.plain_values import plain
from ball_features.config.toml import Repeat, read_settings, toml_text
from ball_features.errors import BallError, CacheError, ConfigError
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.runs.checks import check_protocol

COMMANDS = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
CHANGED = FitConfig(
    protocol="group-cv", models=("mlp", "robust-logistic"), repeats=2, folds=3, test_size=0.3, val_size=0.1, seed=7,
    groups='my "files"/patients.csv', group_column="class+overlay", center="overlay", train_views="all",
    test_views="plain,grey-1", channels=("original", "segmented"), combine="mean", jobs=2, memory="4GB",
    backend="dask", cluster="tcp://a:1",
    compat_batch_metrics=True,
    head=HeadConfig(
        hidden=(32, 16), learning_rate=3e-4, l2=0.0, epochs=3, batch_size=8, dropout=0.1, clip_norm=None,
        class_weight="balanced", group_loss="balanced", consistency=0.5, per_image=True,
    ),
)  # fmt: skip


@pytest.fixture
def seen(monkeypatch):
    """A function from the words of a command line to (arguments, options) of the function behind the command."""
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        raise CacheError("stop")

    for module in ("runs.fit.fit", "runs.compare.compare", "runs.tune.tune", "extraction.extract.extract"):
        monkeypatch.setattr(f"ball_features.{module}", record)

    def run(*words):
        calls.clear()
        done = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(done.exception, ConfigError):
            raise done.exception
        assert calls, done.output
        return calls[0]

    return run


@pytest.mark.parametrize(("command", "config"), [("extract", ExtractConfig), ("fit", FitConfig)])
def test_every_setting_has_a_flag_with_its_default(command, config, seen):
    names = {item.name for item in COMMANDS[command].params}
    for _, item, _ in options_of(config):
        assert flat_name(item) in names
    words = ("a", "--out", "b.h5") if command == "extract" else ("a.h5",)
    found = next(item for item in seen(command, *words)[0] if isinstance(item, config))
    assert found == config()


@pytest.mark.parametrize("config", [ExtractConfig, FitConfig, HeadConfig])
def test_every_setting_says_what_it_does(config):
    for _, item, _ in options_of(config):
        help = item.metadata["option"].help
        assert help.endswith(".")
        assert "--" not in help


@pytest.mark.parametrize("config", [FitConfig(), CHANGED, FitConfig(tta=True, head=HeadConfig(group_loss="dro"))])
@pytest.mark.parametrize("verb", ["fit", "compare"])
def test_the_file_of_a_run_repeats_it(config, verb, seen, tmp_path):
    if verb == "compare":
        plain_ones = {"channels": (), "combine": "concat", "compat_batch_metrics": False}
        config = dataclasses.replace(config, **plain_ones)
    inputs = {"cache": "a b.h5"} if verb == "fit" else {"caches": ["a.h5:mean", "b's.h5"]}
    file = tmp_path / "config.toml"
    more = {"save": "mlp"} if verb == "fit" else {}
    file.write_text(Repeat(verb, inputs, config, more).text(), encoding="utf-8")
    (source, found), options = seen(verb, "--config", file)
    assert found == config
    assert [source] == [Path("a b.h5")] if verb == "fit" else source == inputs["caches"]
    assert options.get("save", Saving("mlp")) == Saving("mlp")


def test_the_ladder_is_a_protocol_of_fit_alone(monkeypatch, tmp_path, seen):
    calls = []

    def climb(cache, config, **options):
        calls.append(config)
        raise CacheError("stop")

    monkeypatch.setattr("ball_features.runs.ladder.ladder", climb)
    file = tmp_path / "config.toml"
    file.write_text(Repeat("fit", {"cache": "a.h5"}, FitConfig(protocol="ladder", repeats=2)).text())
    CliRunner().invoke(app, ["fit", "--config", str(file)])
    CliRunner().invoke(app, ["fit", "a.h5", "--protocol", "ladder", "--repeats", "2"])
    assert calls == [FitConfig(protocol="ladder", repeats=2)] * 2
    for words in (["--save", "mlp"], ["--compat-batch-metrics"]):
        done = CliRunner().invoke(app, ["fit", "a.h5", "--protocol", "ladder", *words])
        assert "not with the ladder" in str(done.exception)
    with pytest.raises(ConfigError, match="which is several") as refused:
        check_protocol(FitConfig(protocol="ladder"))
    assert refused.value.option == "protocol"


def test_every_setting_is_changed_above():
    for changed, usual in ((CHANGED, FitConfig()), (CHANGED.head, HeadConfig())):
        for item in dataclasses.fields(changed):
            if item.name not in ("tta", "adapt"):  # each excludes a setting that is changed
                assert getattr(changed, item.name) != getattr(usual, item.name), item.name


def test_a_file_of_extraction(seen, tmp_path):
    config = ExtractConfig(channels=("original", "segmented"), batch_size=0, views=3, seed=2, weights="random")
    file = tmp_path / "extract.toml"
    file.write_text(toml_text({"images": "my images", **plain(config)}), encoding="utf-8")
    assert tomllib.loads(file.read_text())["batch_size"] == "auto"
    (images, out, found), _ = seen("extract", "--config", file, "--out", "c.h5")
    assert (str(images), str(out), found) == ("my images", "c.h5", config)
    assert seen("extract", "--config", file, "--out", "c.h5", "--batch-size", 4)[0][2].batch_size == 4


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(seen, tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('cache = "a.h5"\nrepeats = 2\nmodels = "mlp, knn"\nval_size = 0.2\n[head]\nepochs = 7\n')
    config = seen("fit", "--config", file, "--preset", "report", "--repeats", 5, "--dropout", 0.3)[0][1]
    assert config.repeats == 5  # also where it is the default
    assert config.models == ("mlp", "knn")
    assert config.channels == tuple(PRESETS["report"].settings["channels"])
    assert (config.head.epochs, config.head.dropout, config.val_size) == (7, 0.3, 0.2)
    assert str(seen("fit", "b.h5", "--config", file)[0][0]) == "b.h5"


def test_a_run_of_an_older_version_is_repeated_from_its_run_json(seen, tmp_path):
    file = tmp_path / "run.json"
    wanted = dataclasses.replace(CHANGED, compat_batch_metrics=False, cluster="")
    config = wanted.to_dict()
    del config["compat_batch_metrics"]
    file.write_text(json.dumps({"cache": "a.h5", "config": config}))
    (cache, found), _ = seen("fit", "--config", file)
    assert (str(cache), found) == ("a.h5", wanted)
    for name in ("cluster", "groups"):
        file.write_text(json.dumps({"cache": "a.h5", "config": config | {name: "tcp://scheduler:8786"}}))
        with pytest.raises(ConfigError, match=f"{name} is an address, which a run may not name"):
            seen("fit", "--config", file)
    file.write_text("[]")
    with pytest.raises(ConfigError, match=r"Expected the run\.json of a run"):
        seen("fit", "--config", file)


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("fit", 'modles = ["mlp"]', "sets 'modles'.*Did you mean 'models'"),
        ("fit", "epochs = 3", "sets 'epochs'.*Did you mean 'head.epochs'"),
        ("fit", "[head]\nepoch = 3", "sets 'head.epoch'.*Did you mean 'head.epochs'"),
        ("fit", "json = true", "sets 'json'"),
        ("fit", "[models]\na = 1", "models=.*expected names in a tuple or list"),
        ("fit", "folds = '3'", "folds='3', expected a whole number"),
        ("fit", "folds = 1", "folds=1, expected at least 2"),
        ("fit", "cache = 3", "sets cache=3, expected a path"),
        ("compare", "caches = [3, 4]", "expected paths in a list"),
        ("fit", "head = 3", r"sets head=3, expected a table: \[head\]"),
        ("fit", "folds = ", "cannot be read.*Expected TOML"),
        ("tune", "[head]\ndropout = 0.5", "head.dropout=0.5, which `ball tune` does not heed"),
        ("tune", "folds = 5\n", None),  # the default, as the file of a run has it
        ("compare", 'channels = ["original"]', "`ball compare` does not heed"),
        ("extract", "backbon = 'densenet121'", "Did you mean 'backbone'"),
        ("extract", "batch_size = 'many'", "batch_size='many', expected a whole number"),
    ],
)
def test_a_wrong_file_is_refused(command, text, message, seen, tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(text)
    words = {"extract": ("d", "--out", "c.h5"), "compare": ("a.h5", "b.h5")}.get(command, ("a.h5",))
    words = () if text.startswith("cache") else words
    if message is None:
        assert seen(command, *words, "--config", file)
        return
    with pytest.raises(ConfigError, match=message):
        seen(command, *words, "--config", file)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["fit", "a.h5", "--folds", "1"], "The option is --folds."),
        (["fit", "a.h5", "--head-batch-size", "1"], "The option is --head-batch-size."),
        (["fit", "a.h5", "--config", "a.toml"], "It is set in a.toml."),
        (["fit", "a.h5", "--config", "none.toml"], "Name a TOML file."),
        (["extract", "d", "--out", "c.h5", "--batch-size", "many"], "The option is --batch-size."),
    ],
)
def test_a_message_ends_with_where_the_setting_comes_from(words, end, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("folds = 1")
    monkeypatch.setattr("sys.argv", ["ball", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(end)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["extract", "d", "--out", "a.h5", "-o", "b.h5"], "--out"),
        (["fit", "a.h5", "--models", "mlp", "--seed", "3", "--models", "xgboost"], "--models"),
        (["tune", "a.h5", "--config", "a.toml", "--config=b.toml"], "--config"),
    ],
)
def test_a_second_value_does_not_replace_the_first_without_a_word(words, flag):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert f"{flag} is given 2 times, expected once" in " ".join(done.output.split())


def test_switches_may_be_repeated_and_sheets_are_several(seen, tmp_path):
    _, options = seen("extract", "d", "-o", "c.h5", "--sheet", "a,1.csv", "--sheet", "b.csv", "--quiet", "-q")
    assert options["collection"].sheet == ("a,1.csv", "b.csv")
    for text, sheets in (('"a.csv"', ("a.csv",)), ('["a.csv", "b.csv"]', ("a.csv", "b.csv"))):
        (tmp_path / "s.toml").write_text(f"sheet = {text}")
        assert seen("extract", "d", "-o", "c.h5", "--config", tmp_path / "s.toml")[1]["collection"].sheet == sheets
    assert seen("extract", "d", "-o", "c.h5")[1]["collection"].sheet == ()


def test_a_missing_input_is_wrong_use():
    for command in ("fit", "compare", "tune"):
        done = CliRunner().invoke(app, [command])
        assert done.exit_code == 2
        assert "Missing argument" in done.output


def test_a_run_on_an_address_says_why_its_cache_is_missing(tmp_path):
    (tmp_path / "run.json").write_text('{"cache": "s3://bucket/a.h5", "config": {}}')
    done = CliRunner().invoke(app, ["fit", "--config", str(tmp_path / "run.json")])
    assert done.exit_code == 2
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())
    assert "Missing argument 'cache'." in words
    assert "names an address for it, which a run may not name" in words


@pytest.mark.parametrize(
    "text", ["", 'a "b" \\ c', "\n\t\x1b\x7f", "前B", "C:\\x", "[ALL]", "\udc80"], ids=lambda text: ascii(text)
)
def test_toml_is_read_back(text):
    values = {"text": text, "list": [text, "a"], "n": 3, "x": 1e-05, "y": 2.0, "on": True, "empty": [], "t": {"a": 1}}
    found = tomllib.loads(toml_text(values, "a comment"))
    if text != "\udc80":  # a file name that is not UTF-8 has no TOML
        assert found == values
    assert found["n"] == 3
    assert type(found["y"]) is float


def test_the_command_of_a_run_is_quoted(tmp_path):
    repeat = Repeat("fit", {"cache": "my caches/a.h5"}, FitConfig())
    assert repeat.command(tmp_path / "a run").startswith("ball fit 'my caches/a.h5' --config '")
    file = tmp_path / "config.toml"
    file.write_text(repeat.text())
    assert read_settings(file)["cache"] == "my caches/a.h5"


def test_the_panels_of_fit_begin_with_what_most_people_need(capsys):
    panels = {}
    for item in COMMANDS["fit"].params:
        panels.setdefault(getattr(item, "rich_help_panel", None), []).append(item.name)
    assert list(panels) == [None, "Most used", "Protocol", "Models", "Head", "Views", "Output"]
    assert len(panels["Most used"]) == 10


@dataclasses.dataclass(frozen=True)
class Widths(Config):
    sides: tuple[int, ...] = option((3,), "Sides of things.", low=1, filled=True, unit="sides of")
    share: float = option(0.5, "Share of things.", low=0, below=1)
    count: int = option(0, "Number of things.", low=2, high=9, special={0: "all"})
    kind: str | None = option(None, "Kind of things.", choices=("a", "b"), words={"none": None})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sides": (3, 0)}, "sides of at least 1"),
        ({"sides": ()}, "sides of at least 1"),
        ({"share": 1.0}, "at least 0 and below 1"),
        ({"share": float("nan")}, "at least 0 and below 1"),
        ({"count": 1}, r"2 to 9, or 0 \(all\)"),
        ({"count": 10}, "2 to 9"),
        ({"kind": "c"}, "none, a or b"),
    ],
)
def test_ranges_follow_from_the_field(values, message):
    with pytest.raises(ConfigError, match=message) as refused:
        Widths(**values)
    assert refused.value.option == next(iter(values))
    assert Widths(sides=[1, 2], share=0, count=9, kind="b").sides == (1, 2)
    assert plain(Widths()) == {"sides": [3], "share": 0.5, "count": 0, "kind": "none"}


def test_a_required_option_has_no_default():
    @dataclasses.dataclass(frozen=True)
    class Needed(Config):
        out: str = option(REQUIRED, "Where things go.")

    with pytest.raises(TypeError):
        Needed()  # pyright: ignore
    assert flag("as_json") == "--json"


def test_inspect_prints_the_settings_that_make_a_cache(smears, small_cache, tmp_path):
    done = CliRunner().invoke(app, ["inspect", str(small_cache), "--settings"])
    file = tmp_path / "extract.toml"
    file.write_text(done.stdout, encoding="utf-8")
    out = shutil.copy(small_cache, tmp_path / "again.h5")
    again = CliRunner().invoke(app, ["extract", "--config", str(file), "--out", str(out), "--json", "--dry-run"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["computed"] == 0  # the settings are those of the cache
    other = CliRunner().invoke(app, ["extract", "--config", str(file), "--out", str(out), "--seed", "1", "--dry-run"])
    assert isinstance(other.exception, CacheError)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [("original",), ("original", "segmented")])
def test_the_settings_of_a_cache_are_those_it_was_made_with(smears, tmp_path, channels, tiny_densenet):
    out = tmp_path / "a.h5"
    config = ExtractConfig(
        backbone=tiny_densenet, weights="random", views=1, precision="fp32", input_px=64, dtype="float32",
        channels=channels, seed=4, twins="none", limit=8, batch_size=4,
    )  # fmt: skip
    extract(smears, out, config)
    cache = read_cache(out, embeddings=False)
    found = Preprocessing.from_attributes(cache.attributes).to_config()
    usual = ExtractConfig()
    twins = "none" if len(channels) > 1 else "auto"
    resolved = {"normalize": found.normalize, "recipe": "plain", "limit": 0, "batch_size": usual.batch_size}
    assert found == dataclasses.replace(config, **resolved, twins=twins)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ImportError("libx.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_is_short_is_told_in_words(monkeypatch, capsys, error):
    def full(**options):
        raise error

    monkeypatch.setattr("ball_features.cli.root.app", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "The memory of this machine does not suffice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "none", "--out", "c.h5", "--batch-size", "7" * 5000),
        ("extract", "none", "--out", "c.h5", "--shard", f"{'7' * 5000}/9"),
        ("extract", "none", "--out", "c.h5", "--shard", "1/²"),
        ("extract", "none", "--out", "c.h5", "--device", f"cuda:{'7' * 5000}"),
        ("fit", "none.h5", "--memory", f"{'7' * 5000}GB"),
    ],
    ids=["batch size", "shard", "shard of another script", "device", "memory"],
)
def test_numbers_of_any_length_are_told_in_words(words):
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, BallError | SystemExit), result.exception
