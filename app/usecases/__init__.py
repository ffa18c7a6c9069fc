"""One module per verb. Each use case is a function that owns its transactions.

What they work with is a `Runtime`, built once per process by `app.bootstrap`.
"""
