from mpq.monitor.dashboard import dashboard


def test_panels_fill_rows_without_overlap() -> None:
    panels = dashboard()["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, 13))
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (4 + 4 * 8)


def test_every_query_goes_to_the_chosen_data_source() -> None:
    board = dashboard()
    assert board["templating"]["list"][0]["name"] == "datasource"
    assert {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]} == {"${datasource}"}
