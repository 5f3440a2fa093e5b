"""Amounts as Kubernetes writes them."""

from decimal import Decimal, InvalidOperation

from leray.platform.cluster_check.documents import Entry

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5}
_DECIMAL = {"n": -3, "u": -2, "m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def amount_of(entry: Entry) -> Decimal | None:
    """Return a quantity such as `500m` or `16Gi` as a number, or None if it is none."""
    text = str(entry.value)
    exponent = 0
    base = Decimal(1000)
    if text[-2:] in _BINARY:
        text, exponent, base = text[:-2], _BINARY[text[-2:]], Decimal(1024)
    elif text[-1:] in _DECIMAL:
        text, exponent = text[:-1], _DECIMAL[text[-1:]]
    try:
        amount = Decimal(text) * base**exponent
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None
