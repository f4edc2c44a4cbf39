"""Subscription: the registry. It owns who wants what: subscriptions, catalogue, consumers, keys.

consumer ─REST─▶ gateway ─gRPC─▶ [subscription] ─Watch─▶ route

Law 1: nobody else reads its database; every change of a subscription is streamed instead.
Law 2: each change takes the next revision in its own transaction, so changes become visible in order.
Law 3: a secret is in clear only in memory and in the answers that must carry it.
"""
