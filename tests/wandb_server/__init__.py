"""A protocol double of a W&B server, for tests that drive the real client over HTTP on loopback.

    server.py      the HTTP server: keys, faults, routes
    graphql.py     dispatch of GraphQL operations by name
    runs.py        operations on runs and projects        filestream.py  history, summary and logs as they stream in
    artifacts.py   operations on artifacts, with _lists   sweeps.py      sweeps, agents, hand-out of trials
    hyperband.py   early termination of a sweep's runs
    views.py       saved workspaces and reports           filters.py     the language of `Api().runs(filters=...)`
    state.py       what the server holds; tests ask it    faults.py      errors, delays and cut connections
    fixtures.py    the pytest fixture `wandb_server`

Handlers answer with more fields than were asked for, which the client ignores. An operation that is not known here is
answered with an error and noted in `server.unknown`; the fixture then fails the test.
"""
