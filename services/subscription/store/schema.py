"""Schema: the registry's tables as the newest migration leaves them.

store → [schema] → database

Ids sort by time of creation, so a list by id is a list by age. Every sealed value is stored beside the id of its secret key.
"""

import sqlalchemy as sa

from services.subscription.store.sqlite import INTEGER_64

metadata = sa.MetaData()
_JSON = sa.JSON(none_as_null=True)

# One row. `revision` is the revision of the latest change of a subscription; changes up to `compacted_revision` are no longer kept.
# `change_id` and `compacted_change_id` are the random ids of the changes of those two revisions. `pause` is set while all deliveries
# are paused.
registry = sa.Table(
    "registry",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("registry_id", sa.Text, nullable=False),
    sa.Column("revision", INTEGER_64, nullable=False),
    sa.Column("compacted_revision", INTEGER_64, nullable=False),
    sa.Column("catalogue_version", INTEGER_64, nullable=False),
    sa.Column("change_id", sa.Text, nullable=False),
    sa.Column("compacted_change_id", sa.Text, nullable=False),
    sa.Column("pause", _JSON, nullable=True),
)

# A known text, sealed with each secret key; it reveals a wrong secret key at the start.
secret_key_checks = sa.Table(
    "secret_key_checks",
    metadata,
    sa.Column("secret_key_id", sa.Text, primary_key=True),
    sa.Column("box", sa.LargeBinary, nullable=False),
)

# The peppers of secret keys that were replaced: API keys were hashed with them. `id` is the id of the replaced secret key, and
# `secret_key_id` that of the newer secret key that seals the pepper.
key_peppers = sa.Table(
    "key_peppers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("secret_key_id", sa.Text, nullable=False),
    sa.Column("box", sa.LargeBinary, nullable=False),
)

# `subscriptions_created` counts all subscriptions that the consumer ever created; it decides the slot of the next one.
consumers = sa.Table(
    "consumers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Column("subscriptions_created", INTEGER_64, nullable=False),
    sa.Column("pause", _JSON, nullable=True),
)

# `lookup` is the beginning of `digest`: the search compares only `lookup`; then the whole digest is compared in constant time.
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("consumer_id", sa.Text, sa.ForeignKey("consumers.id"), nullable=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("secret_key_id", sa.Text, nullable=False),
    sa.Column("lookup", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("expire_ms", INTEGER_64, nullable=True),
    sa.Column("revoke_ms", INTEGER_64, nullable=True),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Index("keys_by_lookup", "lookup"),
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("consumer_id", sa.Text, sa.ForeignKey("consumers.id"), nullable=False),
    sa.Column("sink", sa.Text, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("types", sa.JSON, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_reason", sa.Text, nullable=False),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Column("update_ms", INTEGER_64, nullable=False),
    sa.Column("revision", INTEGER_64, nullable=False),
    sa.Column("sink_revision", INTEGER_64, nullable=False),
    sa.Column("limits", _JSON, nullable=False),
    sa.Column("settings", _JSON, nullable=False),
    sa.Column("credential", _JSON, nullable=True),
    sa.Column("verification", _JSON, nullable=True),
    sa.Column("pause", _JSON, nullable=True),
    sa.Index("subscriptions_by_consumer", "consumer_id", "id"),
)

# The secret member of a subscription's credential; the other members are in the subscription's row.
credential_secrets = sa.Table(
    "credential_secrets",
    metadata,
    sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
    sa.Column("secret_key_id", sa.Text, nullable=False),
    sa.Column("box", sa.LargeBinary, nullable=False),
)

# The holder of the token with this digest may consent for the sink that the subscription had at `sink_revision`.
callback_tokens = sa.Table(
    "callback_tokens",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), nullable=False),
    sa.Column("sink_revision", INTEGER_64, nullable=False),
    sa.Column("expire_ms", INTEGER_64, nullable=False),
    sa.Index("callback_tokens_by_subscription", "subscription_id"),
    sa.Index("callback_tokens_by_age", "expire_ms"),
)

# The higher the number, the newer the secret.
signing_secrets = sa.Table(
    "signing_secrets",
    metadata,
    sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
    sa.Column("number", INTEGER_64, primary_key=True, autoincrement=False),
    sa.Column("secret_key_id", sa.Text, nullable=False),
    sa.Column("box", sa.LargeBinary, nullable=False),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Column("expire_ms", INTEGER_64, nullable=True),
    sa.Column("scheme", sa.Text, nullable=False),
)

# The history that watches resume from; its revisions have no gaps. `subject_id` is the subscription or the consumer that has changed,
# and "" for the system. `change_id` is random: two registries that continue from the same copy have the same revisions, but different
# ids.
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("revision", INTEGER_64, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("change_id", sa.Text, nullable=False),
)

event_types = sa.Table(
    "event_types",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("audience_required", sa.Boolean, nullable=False),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Column("update_ms", INTEGER_64, nullable=False),
    sa.Column("version", INTEGER_64, nullable=False),
)

# The answer to a call with a request id, for a repeat of that call; `box` holds the request's digest and the answer.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("secret_key_id", sa.Text, nullable=False),
    sa.Column("box", sa.LargeBinary, nullable=False),
    sa.Column("create_ms", INTEGER_64, nullable=False),
    sa.Index("answers_by_age", "create_ms"),
)
