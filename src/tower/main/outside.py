"""What `tower doctor` sees through an address, as anybody does who knows it."""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tower.main.checkup import FAIL, OK, WARN, Finding

MAX_SKEW_SECONDS = 30.0
_SECONDS = 15.0
_SOON = 30 * 24 * 3600.0
_LARGEST = 1 << 20


class Outside:
    """Looks at what anybody sees who knows the address."""

    def __init__(self, ca_file: Path | None = None) -> None:
        """`ca_file` holds authorities to trust besides the system's."""
        self._trust = ssl.create_default_context()
        if ca_file is not None:
            self._trust.load_verify_locations(ca_file)

    def endpoint(self, url: str, key: str | None) -> list[Finding]:
        """Connection, TLS, name, clock, and the key if there is one."""
        try:
            status, headers, body, certificate = self._get(f"{url}/.well-known/oauth-authorization-server")
        except ssl.SSLCertVerificationError as error:
            remedy = (
                "Give its authority with --ca-file (tls/ca.pem of its home), or a certificate for this name."
            )
            return [_fail("tls", f"{url}: {error.verify_message}", remedy)]
        except OSError as error:
            remedy = "Is Tower up, and is this its address? Behind a proxy, look at the proxy."
            return [_fail("endpoint", f"{url} does not answer: {error}", remedy)]
        findings = [_ok("endpoint", f"{url} answers")]
        findings += self._certificate(url, certificate)
        findings += self._name(url, status, body)
        findings += self._clock(headers)
        if key is not None:
            findings.append(self._accepted(url, key))
        return findings

    def app(self, url: str) -> Finding:
        """Whether an anonymous call gets through to an app."""
        try:
            status, *_ = self._get(url)
        except OSError as error:
            return _fail("app", f"{url} does not answer: {error}", "Is this the app's address?")
        if status in {401, 403}:
            return _ok("app", f"{url} refuses strangers ({status})")
        if status < 400:
            remedy = (
                "Declare it with requires_auth=True, and leave the path out of public_paths and of the "
                "middleware's excluded_paths; or keep it if it is meant to be public."
            )
            return _fail("app", f"{url} answers strangers ({status})", remedy)
        return Finding("app", WARN, f"{url} answers {status}", "Is this the app's address, and is it up?")

    def _certificate(self, url: str, certificate: dict[str, Any]) -> list[Finding]:
        if not certificate:
            local = urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
            if local:
                return [_ok("tls", "plain HTTP, on this machine")]
            remedy = "Serve HTTPS: tower up --tls, or a proxy that ends TLS."
            return [_fail("tls", "plain HTTP over the network", remedy)]
        until = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        end = datetime.fromtimestamp(until, UTC)
        told = f"the certificate is trusted, has this name, and holds until {end:%Y-%m-%d}"
        if until - time.time() < _SOON:
            return [Finding("tls", WARN, told, "Renew it.")]
        return [_ok("tls", told)]

    def _name(self, url: str, status: int, body: bytes) -> list[Finding]:
        try:
            issuer = json.loads(body)["issuer"] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            issuer = None
        if issuer is None:
            return [_fail("name", f"{url} is no Tower", "Look at what answers there.")]
        if issuer != url.lower():
            remedy = f"Use that name, or start Tower with --public-url {url}."
            return [_fail("name", f"this Tower calls itself {issuer}", remedy)]
        return [_ok("name", f"it calls itself {issuer}")]

    def _clock(self, headers: dict[str, str]) -> list[Finding]:
        if "date" not in headers:
            return []
        skew = time.time() - email.utils.parsedate_to_datetime(headers["date"]).timestamp()
        told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the endpoint's"
        if abs(skew) > MAX_SKEW_SECONDS:
            return [_fail("endpoint clock", told, "Set both clocks by NTP.")]
        return [_ok("endpoint clock", told)]

    def _accepted(self, url: str, key: str) -> Finding:
        status, _, body, _ = self._get(f"{url}/api/v1/whoami", authorization=f"Bearer {key}")
        if status == 200:
            who = json.loads(body)
            return _ok("key", f"accepted as {who['subject']}")
        remedy = "Make another one: tower keys create NAME --user USER. Is the person disabled?"
        return _fail("key", f"not accepted ({status})", remedy)

    def _get(self, url: str, **headers: str) -> tuple[int, dict[str, str], bytes, dict[str, Any]]:
        """One GET without redirects: status, headers, body and the certificate. Raises OSError."""
        place = urlsplit(url)
        kind: Any = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        more = {"context": self._trust} if place.scheme == "https" else {}
        connection = kind(place.hostname, place.port, timeout=_SECONDS, **more)
        try:
            path = (place.path or "/") + (f"?{place.query}" if place.query else "")
            connection.request("GET", path, headers={"accept": "application/json", **headers})
            certificate = connection.sock.getpeercert() if place.scheme == "https" else {}
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, named, answer.read(_LARGEST), certificate
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP ({type(error).__name__})") from error
        finally:
            connection.close()


def _ok(name: str, told: str) -> Finding:
    return Finding(name, OK, told)


def _fail(name: str, told: str, remedy: str) -> Finding:
    return Finding(name, FAIL, told, remedy)
