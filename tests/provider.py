"""An OpenID provider for tests, which publishes one key of two; tokens of it, good ones and forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://login.example"


class Provider:
    """An OpenID provider: two keys, one of which it does not publish."""

    def __init__(self) -> None:
        self.key, self.other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        body = json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}).encode()

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def token(
        self, key: Any = None, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        content = {
            "iss": ISSUER,
            "aud": "apbatch",
            "sub": "ann",
            "groups": ["experts"],
            "exp": time.time() + 600,
            **claims,
        }
        content = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(content, key or self.key, algorithm, headers={"kid": "one", **(headers or {})})

    def confused(self) -> str:
        """A token whose HMAC is keyed by the public key, which anybody knows."""
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        head, body, _ = self.token().split(".")
        head = coded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
        return f"{head}.{body}.{coded(hmac.digest(public, f'{head}.{body}'.encode(), hashlib.sha256))}"

    def unsigned(self, name: str = "none") -> str:
        _, body, _ = self.token().split(".")
        return f"{coded(json.dumps({'alg': name, 'typ': 'JWT', 'kid': 'one'}).encode())}.{body}."


def coded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
