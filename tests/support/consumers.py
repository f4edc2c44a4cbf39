"""Consumers: accounts, keys and subscriptions, made over REST as an outsider makes them."""

from dataclasses import dataclass

from tests.support.system.processes import System
from tests.support.webhook_receivers.receiver import Endpoint


@dataclass(slots=True)
class Consumer:
    """A consumer with a key of its own."""

    system: System
    id: str
    key: str

    async def subscribe(self, endpoint: Endpoint, types: list[str] | None = None, **more: object) -> str:
        """Subscribe an endpoint and return the subscription's id; the endpoint then verifies with the subscription's secret.

        A second call for the same endpoint, after a lost answer, returns the same subscription.
        """
        body = {"sink": endpoint.url, "types": types or [], **more}
        status, created = await self.system.call("POST", "/v1/subscriptions", self.key, body, idempotency_key=f"subscribe-{endpoint.name}")
        assert status == 201, created
        endpoint.secrets.append(str(created["secret"]))
        return str(created["id"])

    async def unsubscribe(self, subscription_id: str) -> None:
        """Delete a subscription."""
        status, answer = await self.system.call("DELETE", f"/v1/subscriptions/{subscription_id}", self.key)
        assert status == 204, answer

    async def deliveries(self, **query: str) -> list[dict[str, object]]:
        """Return all deliveries that the consumer sees, over all pages."""
        found: list[dict[str, object]] = []
        cursor = ""
        while True:
            asked = "&".join(
                f"{name}={value}" for name, value in {**query, "limit": "200", **({"cursor": cursor} if cursor else {})}.items()
            )
            status, page = await self.system.call("GET", f"/v1/deliveries?{asked}", self.key)
            assert status == 200, page
            found += page["items"]  # type: ignore[arg-type]  # a list, as every page has
            if page["next_cursor"] is None:
                return found
            cursor = str(page["next_cursor"])


async def new_consumer(system: System, name: str) -> Consumer:
    """Make a consumer and its key, with the administrator's key."""
    status, consumer = await system.call("POST", "/v1/consumers", system.first.admin, {"name": name})
    assert status == 201, consumer
    wanted = {"role": "consumer", "consumer_id": consumer["id"], "name": name}
    status, key = await system.call("POST", "/v1/keys", system.first.admin, wanted)
    assert status == 201, key
    return Consumer(system, str(consumer["id"]), str(key["key"]))
