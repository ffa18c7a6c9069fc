"""Use cases: functions that own their transactions, one module for each thing that is done.

`intake` takes intents, `deciding` finds their next step, `delivering` hands them over, `hearing`
reads what comes back. `consent` and `people` are about customers, `operating` is for operators,
`telling` says what became of it all. What they all work with is a `Runtime`, built once per process
by `app.bootstrap`.
"""
