"""The OAuth server's use-cases: codes and devices that people allow, and the tokens that come of them."""

from __future__ import annotations

from tower.control.oauth.authorisations import Asked, Authorisations
from tower.control.oauth.devices import Devices, Waiting
from tower.control.oauth.issuing import Issued, Issuing
from tower.control.oauth.refusals import Refusal
from tower.control.oauth.tokens import Tokens

__all__ = ["Asked", "Authorisations", "Devices", "Issued", "Issuing", "Refusal", "Tokens", "Waiting"]
