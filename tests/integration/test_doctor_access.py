"""What the doctor says of permissions, on servers that really refuse."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator

import boto3
import httpx
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pipeline.entrypoints.cli import doctor_access
from pipeline.entrypoints.cli.setup_steps import make_buckets
from pipeline.settings import Settings, load_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

READING = ["s3:GetObject", "s3:ListBucket"]


class Gateway:
    """Two buckets of their own, and a user who may do what the policies say."""

    def __init__(self) -> None:
        name = f"access-{secrets.token_hex(4)}"
        self.root = load_settings(
            s3_archive_bucket=f"{name}-archive", s3_vault_bucket=f"{name}-vault"
        )
        self.user = load_settings(
            s3_archive_bucket=f"{name}-archive",
            s3_vault_bucket=f"{name}-vault",
            s3_access_key_id=name,
            s3_secret_access_key=secrets.token_urlsafe(18),
        )
        make_buckets(self.root)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.root.s3_endpoint_url,
            region_name=self.root.s3_region,
            aws_access_key_id=self.root.s3_access_key_id,
            aws_secret_access_key=self.root.s3_secret_access_key.get_secret_value(),
        )
        self._make_user()

    def allow(self, bucket: str, actions: list[str]) -> None:
        arn = f"arn:aws:s3:::{bucket}"
        rule = {
            "Effect": "Allow",
            "Principal": [self.user.s3_access_key_id],
            "Action": actions,
            "Resource": [arn, f"{arn}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        self.client.put_bucket_policy(Bucket=bucket, Policy=policy)

    def forget(self) -> None:
        for bucket in (self.root.s3_archive_bucket, self.root.s3_vault_bucket):
            self.client.delete_bucket(Bucket=bucket)

    def _make_user(self) -> None:
        """By the gateway's own interface; it has no other."""
        body = (
            f"<Account><Access>{self.user.s3_access_key_id}</Access>"
            f"<Secret>{self.user.s3_secret_access_key.get_secret_value()}</Secret>"
            "<Role>user</Role></Account>"
        ).encode()
        url = f"{self.root.s3_endpoint_url}/create-user"
        request = AWSRequest(
            "PATCH",
            url,
            data=body,
            headers={"X-Amz-Content-Sha256": hashlib.sha256(body).hexdigest()},
        )
        owner = Credentials(
            self.root.s3_access_key_id, self.root.s3_secret_access_key.get_secret_value()
        )
        S3SigV4Auth(owner, "s3", self.root.s3_region).add_auth(request)
        answer = httpx.patch(url, content=body, headers=dict(request.headers.items()))
        assert answer.status_code == httpx.codes.CREATED, answer.text


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    if "AUDIT_S3_ENDPOINT_URL" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    made = Gateway()
    try:
        yield made
    finally:
        made.forget()


def refusals(settings: Settings) -> list[str]:
    (finding,) = doctor_access.buckets(settings)
    return finding.detail.split("; ") if finding.status == "fail" else []


def test_a_user_of_the_buckets_lacks_what_its_policy_does_not_give(gateway: Gateway) -> None:
    archive, vault = gateway.root.s3_archive_bucket, gateway.root.s3_vault_bucket

    assert refusals(gateway.root) == []
    assert len(refusals(gateway.user)) == 6

    for bucket in (archive, vault):
        gateway.allow(bucket, READING)
    assert refusals(gateway.user) == [
        f"{archive}: s3 refuses PutObject: AccessDenied",
        f"{vault}: s3 refuses PutObject: AccessDenied",
    ]

    for bucket in (archive, vault):
        gateway.allow(bucket, [*READING, "s3:PutObject"])
    # An archive object has a lock, which is a permission of its own.
    assert refusals(gateway.user) == [f"{archive}: s3 refuses PutObject: AccessDenied"]

    gateway.allow(archive, [*READING, "s3:PutObject", "s3:PutObjectRetention"])
    assert refusals(gateway.user) == []


def test_asking_leaves_nothing_behind(gateway: Gateway) -> None:
    assert refusals(gateway.root) == []

    for bucket in (gateway.root.s3_archive_bucket, gateway.root.s3_vault_bucket):
        assert "Contents" not in gateway.client.list_objects_v2(Bucket=bucket)


def test_a_node_without_security_is_a_warning() -> None:
    if "AUDIT_ELASTICSEARCH_URL" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")

    (finding,) = doctor_access.search(load_settings())

    assert finding.status == "warn"
    assert "security is off" in finding.detail
