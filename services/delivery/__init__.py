"""Delivery: follows the log, routes each event, pushes it, and records what became of it.

event log → route → lane → attempt → schedule → ledger

`follow.py`   reads the log, waits until the replica is new enough (`barrier.py`), and routes each batch
`route.py`    which subscriptions an event is for (pure); `replica.py` keeps them up to date by watching
`lane.py`     what waits for one subscription, in memory or spilled; `dispatch.py` starts attempts
`attempt.py`  makes the request: `envelope.py` the body, `signing.py` and `signing_rfc9421.py` the signatures (all pure)
`terms.py`    how a subscription wants its requests made; `credentials.py` and `oauth2.py` how they authenticate themselves (pure)
`verify.py`   asks a sink for its consent, by the rules of `handshake.py` (pure)
`transport/`    is what requests leave by, with its connections
`schedule.py` after an attempt: delivered, again, or given up (pure); `breaker.py` spares a dead endpoint (pure)
`due.py`      is the time line by which retries wait, whatever the wall clock does
`recorder.py` gathers what happened and flushes it; `ledger.py` and `ledger_reads.py` are the store
`retention.py` lets go of what is old
`worker.py`   puts these together; `server.py` is the read API over gRPC; `app.py` the service
"""
