from xml.etree import ElementTree as ET

import pytest

from loadtest.simulate.charts import lines, seconds_axis, share_axis, strips, time_axis

NAMESPACED = '<svg viewBox="0 0'


def parsed(svg: str) -> ET.Element:
    assert svg.startswith(NAMESPACED)
    return ET.fromstring(svg)


def test_axes_cover_their_values() -> None:
    axis = seconds_axis("t", [0.03, 4.0, 20.0])
    assert (axis.low, axis.high) == (0.01, 100.0)
    assert [label for _, label in axis.ticks] == ["10 ms", "100 ms", "1 s", "10 s", "100 s"]
    assert axis.share(1.0) == pytest.approx(0.5) and axis.share(0.0) == 0.0 and axis.share(1e9) == 1.0
    assert [label for _, label in time_axis(3600).ticks] == ["0", "10", "20", "30", "40", "50", "60"]
    assert [label for _, label in time_axis(30).ticks][:2] == ["0", "0.1"]
    assert share_axis("s", 0.33).high == 0.4 and share_axis("s", 0.93).high == 1.0
    assert seconds_axis("t", []).low < seconds_axis("t", []).high


def test_lines_go_through_their_points() -> None:
    svg = lines(
        'a "<&>" chart', share_axis("x"), share_axis("y"), [[(0, 0), (1, 1)], [(0.5, 0.5)]], (0.5, "SLO")
    )
    root = parsed(svg)
    paths = [line.attrib["points"].split() for line in root.iter("polyline")]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in paths[0])
    x, y = map(float, paths[1][0].split(","))
    assert x == pytest.approx((x0 + x1) / 2, abs=0.1) and y == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert y1 < y0, "up is up"
    assert root.find("title").text == 'a "<&>" chart'  # type: ignore[union-attr]


def test_strips_are_as_strong_as_the_load() -> None:
    root = parsed(strips("load", {"r0": [0.0, 5.0, 10.0], "r1": [0, 0, 0]}, 10.0, time_axis(600), 1))
    cells = [float(cell.attrib["fill-opacity"]) for cell in root.iter("rect")]
    assert cells == [0.04, 0.52, 1.0, 0.04, 0.04, 0.04]
    assert [text.text for text in root.iter("text")][:1] == ["r0"]
