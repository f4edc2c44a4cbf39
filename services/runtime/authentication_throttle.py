"""Authentication throttle: how long the refusal of a request without a valid API key waits before it is sent.

ingest, gateway: key → registry → wrong → [authentication_throttle] → refusal

Each network has a token bucket of failed authentications. While the bucket holds tokens, a refusal is sent at once. Once the bucket is
empty, refusals leave at its rate, so that a client learns the results of its guesses no faster than that.

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: callers count only requests without a valid key: the key is wrong or missing, the route needs no key, or the peer left before the
check. This count neither refuses nor delays a correct key, wherever it comes from.
Law 3: the number of networks is bounded; the network whose last failure is the oldest is forgotten first.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

FAILURES_BURST = 20
FAILURES_PER_SECOND = 5.0
DELAY_MAX_S = 5.0
NETWORKS_MAX = 10_000
_IPV6_PREFIX_BITS = 64


def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address by itself, an IPv6 address by its /64.

    An IPv4 address written as IPv6 (``::ffff:192.0.2.1``) counts as IPv4. Anything that is not an address, such as
    the path of a Unix socket, is returned as it is.
    """
    try:
        # A zone (``fe80::1%eth0``) names an interface of this machine, not a client.
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _IPV6_PREFIX_BITS), strict=False))


@dataclass(slots=True)
class _Bucket:
    """How many tokens were left at `at_s`; below zero while refusals wait."""

    tokens: float
    at_s: float


class AuthenticationThrottle:
    """Counts failed authentications by network."""

    def __init__(self, *, burst: int = FAILURES_BURST, per_second: float = FAILURES_PER_SECOND, networks_max: int = NETWORKS_MAX) -> None:
        """Allow each network `burst` failures at once and `per_second` from then on; remember at most `networks_max` networks."""
        self._burst = float(burst)
        self._per_second = per_second
        self._networks_max = networks_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def change(self, *, burst: int, per_second: float) -> None:
        """Use other limits from now on."""
        self._burst, self._per_second = float(burst), per_second

    def failed(self, network: str, now_s: float) -> float:
        """Count a failed authentication; return for how many seconds its refusal waits, at most `DELAY_MAX_S`."""
        bucket = self._buckets.pop(network, None)
        if bucket is None:
            while len(self._buckets) >= self._networks_max:
                self._buckets.popitem(last=False)
            bucket = _Bucket(self._burst, now_s)
        tokens = min(self._burst, bucket.tokens + max(0.0, now_s - bucket.at_s) * self._per_second) - 1
        bucket.tokens = max(tokens, -DELAY_MAX_S * self._per_second)
        bucket.at_s = now_s
        self._buckets[network] = bucket
        return max(0.0, -bucket.tokens / self._per_second)

    def is_throttled(self, network: str, now_s: float) -> bool:
        """Return whether the refusal of another wrong key from this network would wait."""
        bucket = self._buckets.get(network)
        return bucket is not None and bucket.tokens + max(0.0, now_s - bucket.at_s) * self._per_second < 1
