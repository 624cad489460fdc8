"""Secrets that are none: short, of few different characters, or printed in Daybook's own documents."""

_PREFIX = "whsec_"
_MIN_LENGTH = 16  # after the prefix
_MIN_DIFFERENT = 8
_API_KEYS = ("sk_", "rk_")  # Stripe's, which open an account and sign nothing

_PRINTED = {
    "b25seSBhbiBleGFtcGxlOiBtYWtlIG9uZSdzIG93biE=",
    "a-long-random-read-key",
    "another-one-for-prometheus",
    "whsec_from-the-dashboard",
    "whsec_printed-by-stripe-listen",
    "whsec_the-secret-of-your-biller",
}


def check_secret(secret: str) -> None:
    """Raise ValueError for a secret that others can know or guess, and for one of another use."""
    text = secret.removeprefix(_PREFIX)
    if text.startswith(_API_KEYS):
        raise ValueError(f"a secret of its own, such as an endpoint's {_PREFIX}…, not an API key")
    if secret in _PRINTED:
        raise ValueError("a secret of your own, not the example in Daybook's documentation")
    if len(text) < _MIN_LENGTH or len(set(text)) < _MIN_DIFFERENT:
        raise ValueError(
            f"random secrets, each of at least {_MIN_LENGTH} characters after any {_PREFIX}, and at least "
            f"{_MIN_DIFFERENT} different ones; `openssl rand -hex 32` makes one"
        )
