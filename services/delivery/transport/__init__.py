"""Transport: sends every request to a sink and reads the answers.

sender, oauth2_client, sinks → [transport] → callback URL

`protocol.py`        the Protocol that the rest of delivery sees; a test or a benchmark may use another implementation
`http.py`            the implementation, HTTP/1.1 on the event loop: checks the URL, and gathers what a request needs before it can leave
`resolver.py`        resolves a name to its addresses, and judges all of them together
`tls_contexts.py`    makes and caches the TLS contexts that verify endpoints
`single_flight.py`   runs one lookup, or makes one context, for all callers that ask for it; consumers take turns
`pool.py`            keeps the connections, and decides which request goes next and over which connection
`exchange.py`        one request under way, its target, and the limits
`fair_queue.py`      the requests that wait; consumers take turns
`dialling.py`        opens a connection, directly or through a proxy
`tls_stream.py`      puts TLS over a socket
`connection.py`      an open connection, and the requests that leave over it
`response_parser.py` parses the answers
"""
