"""Subscription: the registry. It owns the subscriptions, the catalogue, the consumers and the keys.

consumer ─REST─▶ gateway ─gRPC─▶ [subscription] ─Watch─▶ delivery's replica

Law 1: no other service reads its database; the registry streams every change of a subscription instead.
Law 2: each change takes the next revision in its own transaction, so changes become visible in order.
Law 3: a secret is in clear text only in memory, and in the answers that must carry it.
"""
