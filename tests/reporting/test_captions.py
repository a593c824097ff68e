from rich.console import Console, Group
from rich.text import Text

from ball_features.evaluation.rows import LadderRow
from ball_features.reporting.captions import Caption, without_captions
from ball_features.reporting.run_tables import render_ladder


def printed(renderable):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_captions_are_left_out_and_results_stay():
    whole = Group(Text("a result"), Group(Caption("how to read it"), Text("another")), Caption("and this"))
    assert printed(whole).split("\n") == ["a result", "how to read it", "another", "and this", ""]
    assert printed(without_captions(whole)).split("\n") == ["a result", "another", ""]
    assert without_captions("text") == "text"


def test_the_ladder_without_its_caption():
    row = LadderRow("random", "knn", "baseline", 0.91, 0.87, 0.95, None, None, None)
    whole, results = printed(render_ladder([row])), printed(without_captions(render_ladder([row])))
    assert whole.startswith(results.rstrip())
    assert "95 % interval" in whole
    assert "91.0" in results
    assert "interval" not in results
