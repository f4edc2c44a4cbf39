from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.delivery.parent.metrics_merge import merged_metrics


def page_of_worker(routed: int) -> str:
    registry = CollectorRegistry()
    Counter("routed", "Events routed.", registry=registry).inc(routed)
    closed = Counter("closed", 'Closed "how"; a line\nand another.', ["how"], registry=registry)
    closed.labels('a "quoted" {brace}').inc(3)
    Gauge("process_open_fds", "Files.", registry=registry).set(routed)
    return generate_latest(registry).decode()


def page_of_parent() -> str:
    registry = CollectorRegistry()
    Counter("routed", "Events routed.", registry=registry)
    Gauge("relay_joined", "Joined.", registry=registry).set(2)
    Gauge("process_open_fds", "Files.", registry=registry).set(7)
    return generate_latest(registry).decode()


def test_each_metric_is_one_family_with_a_sample_of_each_worker() -> None:
    merged = merged_metrics(page_of_parent(), {1: page_of_worker(20), 0: page_of_worker(10)})
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    assert merged.count("# TYPE routed_total counter") == 1
    routed = {each.labels["worker"]: each.value for each in families["routed"].samples if each.name == "routed_total"}
    assert routed == {"0": 10.0, "1": 20.0}
    [closed] = [each for each in families["closed"].samples if each.name == "closed_total" and each.labels["worker"] == "1"]
    assert (closed.labels["how"], closed.value) == ('a "quoted" {brace}', 3.0)


def test_the_parent_adds_what_is_its_own_and_its_process() -> None:
    merged = merged_metrics(page_of_parent(), {0: page_of_worker(10)})
    families = {family.name: family.samples for family in text_string_to_metric_families(merged)}
    assert [(each.labels, each.value) for each in families["relay_joined"]] == [({}, 2.0)]
    assert {each.labels.get("worker", "parent"): each.value for each in families["process_open_fds"]} == {"0": 10.0, "parent": 7.0}
    alone = page_of_parent()
    assert merged_metrics(alone, {}) == alone
