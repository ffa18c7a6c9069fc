"""When two addresses of the ledger are one: no mailbox tells big letters from small ones.

Mail addresses come in small letters since `usecases/people/addresses.py` writes them so; those that
the ledger had before keep the spelling that they have, and are found all the same.
"""


def same_address(endpoint: str, address: str) -> str:
    """SQL that asks whether an endpoint has an address; `endpoints_any_case` answers it, with the
    brand."""
    return f"""(lower({endpoint}.address) = lower({address})
               AND ({endpoint}.channel = 'email' OR {endpoint}.address = {address}))"""
