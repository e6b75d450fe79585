"""TLS and API keys against the real Elasticsearch. Long (a second server): LONG_TESTS=1."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from breachwatch.errors import FleetError
from breachwatch.fleet.client import ServerSettings, TelemetryServer
from breachwatch.fleet.documents import document
from breachwatch.fleet.indices import index_template, template_name
from tests.fleet.elastic import server_on_free_port
from tests.fleet.samples import AT, match_signal

pytestmark = [
    pytest.mark.elastic,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="long: set LONG_TESTS=1"),
]


@dataclass(frozen=True)
class Secure:
    """A server with TLS, its administrator, and an agent's key that can only create."""

    url: str
    ca: Path
    admin: Elasticsearch
    key: str
    key_id: str

    def create(self, **settings: Any) -> dict[str, str]:
        usual = ServerSettings(url=self.url, ca_file=self.ca, api_key=self.key)
        client = TelemetryServer(replace(usual, **settings))
        try:
            return client.create([document(match_signal("m"), prefix="bw", ingested_at=AT)])
        finally:
            client.close()


@pytest.fixture(scope="module")
def secure() -> Iterator[Secure]:
    server = server_on_free_port()
    try:
        server.run("start", "secure")
        said = server.environment()
        url, ca = said["BW_TEST_ES_URL"], said["BW_TEST_ES_CA"]
        admin = Elasticsearch(url, ca_certs=ca, basic_auth=(said["BW_TEST_ES_USER"], said["BW_TEST_ES_PASSWORD"]))
        may = {"indices": [{"names": ["bw-*"], "privileges": ["create_doc", "auto_configure"]}]}
        key = admin.security.create_api_key(name="agent", role_descriptors={"agent": may})
        yield Secure(url, Path(ca), admin, key["encoded"], key["id"])
        admin.close()
    finally:
        server.run("stop")


def test_a_key_that_may_only_create_is_enough(secure):
    assert secure.create() == {}
    assert secure.create() == {}
    secure.admin.indices.refresh(index="bw-*")
    assert secure.admin.count(index="bw-*")["count"] == 1


def test_an_agents_key_may_not_install_the_template_and_that_is_no_failure(secure):
    client = TelemetryServer(ServerSettings(url=secure.url, ca_file=secure.ca, api_key=secure.key))
    try:
        assert not client.put_template(template_name("bw"), index_template("bw"))
    finally:
        client.close()


def test_the_right_fingerprint_is_enough_and_a_wrong_one_is_refused(secure):
    host, port = secure.url.removeprefix("https://").split(":")
    pem = ssl.get_server_certificate((host, int(port)))
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert secure.create(ca_file=None, fingerprint=fingerprint) == {}
    with pytest.raises(FleetError, match="not trusted"):
        secure.create(ca_file=None, fingerprint="00" * 32)
    with pytest.raises(FleetError, match="not trusted"):
        secure.create(fingerprint="00" * 32)


def test_an_unknown_authority_a_missing_key_and_a_dead_key_are_named(secure):
    with pytest.raises(FleetError, match="not trusted"):
        secure.create(ca_file=None)
    with pytest.raises(FleetError, match=r"401.*elasticsearch__api_key"):
        secure.create(api_key="")
    other = secure.admin.security.create_api_key(
        name="elsewhere", role_descriptors={"r": {"indices": [{"names": ["other-*"], "privileges": ["create_doc"]}]}}
    )
    with pytest.raises(FleetError, match=r"403.*elasticsearch__api_key"):
        secure.create(api_key=other["encoded"])
    secure.admin.security.invalidate_api_key(ids=[other["id"]])
    with pytest.raises(FleetError, match="401"):
        secure.create(api_key=other["encoded"])
