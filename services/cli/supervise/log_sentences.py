"""Log sentences: turns warnings in the services' logs into sentences for people.

service → its log → supervisor → [log_sentences] → terminal

Law 1: pure; time is an argument.
Law 2: one kind of warning never fills the screen: a sentence of one kind appears at most every `QUIET_S` seconds, and says how many
lines were left out since.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

QUIET_S = 10.0
_KINDS_MAX = 256
_CHARS_MAX = 300
_LINE_CHARS_MAX = 65_536
_PAIR = re.compile(r'(?<!\S)([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|\S*)')
_FOREIGN = re.compile(r"level=(\w+) logger=(\S+) (.*)")
_HEAD = frozenset({"timestamp", "level", "service", "event", "exception"})
SENTENCES: Mapping[str, str] = {
    "clock.jumped": "the machine's clock changed by {by_s} s; retries keep their delays",
    "connections.accept_failed": "no further connection can be accepted ({error}); {connections} connections are open",
    "connections.limited": "too many HTTP connections: some were closed ({how}; the first came from {network}); {connections} stay open",
    "verification.failed": "the sink of subscription {subscription} could not be verified ({reason})",
    "verification.dropped": "the sink of subscription {subscription} is not verified now: {sinks_max} other sinks already wait",
    "deliveries.paused": "the operator has paused all deliveries: {effect}",
    "deliveries.expired": "{count} deliveries reached their expiry time and ended as exhausted",
    "delivery.encoding_failed": "event {event_id} cannot be sent to subscription {subscription}: {reason}",
    "delivery.event_missing": "event {event_id} for subscription {subscription} is lost: neither the log nor the ledger has it any more",
    "delivery.id_taken": "delivery {id} shares its id with another delivery, so it is now {given}",
    "disable_report.failed": "subscription {subscription} could not be disabled yet ({reason})",
    "disable_report.dropped": "subscription {subscription} is not disabled now: {reports_max} other reports already wait",
    "expiry.beyond_log": "delivery is not ready: {detail}",
    "notices.not_published": "notices to consumers could not be published yet ({reason})",
    "notice.refused": "a notice to consumer {consumer} was refused and is lost: {reason}",
    "file_limit.too_low": "at most {files_max} files may be open, so {setting} is {used} instead of {wanted}; {advice}",
    "event_log.read_failed": "the event log cannot be read: {reason}",
    "event_log.disconnected": "the connection to the event log was lost; delivery connects again",
    "process.paused": "this process was paused for {paused_s} s; {effect}",
    "circuit_breaker.opened": "the circuit breaker of subscription {subscription} opened after failures; the next attempt is in {for_s} s",
    "ledger.disk_full": "the disk is full, so the ledger cannot be written; {effect}",
    "routing.stopped": "delivery has stopped reading the log: {why}; {advice}",
    "registry.unreachable": "the subscription service cannot be reached ({reason}); {effect}",
    "registry.disconnected": "the connection to the subscription service was lost; delivery connects again",
    "replica.snapshot_requested": "the registry no longer has the changes after revision {revision}; delivery reads all subscriptions",
    "requests.throttled": "too many requests without a valid key come from {network}; their answers are delayed",
    "retention.events_missing": "{events} events are missing in the log, and unfinished deliveries need them",
    "retention.log_unreachable": "old deliveries are not dropped yet, because the event log cannot be reached ({reason})",
    "retention.postponed": "old deliveries are not dropped yet: {reason}",
    "routing.repaired": "delivery reads the log again and routes {routed} events, {repeated} of them a second time",
    "secrets.damaged": "{values} stored secrets are damaged: {detail}",
    "secrets.resealing_delayed": "stored secrets could not be encrypted with the newest key ({reason}); the next try is in {next_s} s",
    "service.failed": "the service stops: {why}",
    "settings.overridden": "{variable} was not changed: {detail}",
    "settings.refused": "the settings were refused, and no setting has changed: {detail}",
    "settings.restart_needed": "{variable} has changed, but {detail}",
    "sink.gone": "the sink of subscription {subscription} answered 410 Gone, so the subscription is disabled",
    "subscription.unreadable": "subscription {subscription} cannot be read ({reason}); {effect}",
    "worker.ended": "worker {worker} was {how}; it starts again in {restart_s} s, and the other workers go on",
    "workers.waiting": "the workers of the former delivery service have not ended yet; {effect}",
    "ledger_file.unreadable": "the ledger of worker {worker} cannot be read ({reason}), so lists lack its deliveries",
    "access_token.failed": "no access token could be fetched for subscription {subscription}: {why}",
}


@dataclass(slots=True)
class _Heard:
    """When a kind of line was last shown, and how many lines of the kind came since."""

    told_s: float
    untold: int = 0


class LogSentences:
    """Turns the lines of all services into sentences."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def sentence(self, line: str, now_s: float) -> str | None:
        """Return the sentence for a line, without the service's name; None if its kind was shown less than `QUIET_S` ago."""
        line = line[:_LINE_CHARS_MAX]
        fields = {name: _unquoted(value) for name, value in _PAIR.findall(line)}
        kind = fields.get("event", "")
        heard = self._heard.get(kind)
        if heard is not None and now_s - heard.told_s < QUIET_S:
            heard.untold += 1
            return None
        if heard is None and len(self._heard) >= _KINDS_MAX:
            self._heard.clear()
        self._heard[kind] = _Heard(now_s)
        more = f" ({heard.untold} more like this since)" if heard is not None and heard.untold else ""
        return f"{_sentence(line, fields)[:_CHARS_MAX]}{more}"


def _sentence(line: str, fields: Mapping[str, str]) -> str:
    kind = fields.get("event", "")
    if kind in SENTENCES:
        try:
            return SENTENCES[kind].format_map(fields).replace("\n", " ")
        except KeyError:
            pass
    if not kind:
        foreign = _FOREIGN.fullmatch(line)
        return f"{foreign[1].lower()} from {foreign[2]}: {foreign[3]}" if foreign else line
    facts = [f"{name} {value}" for name, value in fields.items() if name not in _HEAD]
    if "exception" in fields:
        facts.append(fields["exception"].rstrip("\n").rpartition("\n")[2])
    about = ", ".join(facts)
    level = {"warning": "a warning", "error": "an error"}.get(fields.get("level", ""), "a fault")
    return f"{level}, {kind.replace('.', ': ').replace('_', ' ')}{f' ({about})' if about else ''}"


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value[1:-1]) if value.startswith('"') else value
