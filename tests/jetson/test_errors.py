"""Each error that a user can mend carries the exit code that the command line promises."""

from typing import Type

import pytest

from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError


@pytest.mark.parametrize(("kind", "code"), [(DeployAttnError, 1), (DamagedArtifact, 1), (BadRequest, 2)])
def test_an_error_has_its_exit_code(kind: Type[DeployAttnError], code: int) -> None:
    assert kind("reason").exit_code == code


@pytest.mark.parametrize("kind", [BadRequest, DamagedArtifact])
def test_one_base_class_catches_them_all_and_keeps_the_message(kind: Type[DeployAttnError]) -> None:
    with pytest.raises(DeployAttnError, match=r"^what to do$"):
        raise kind("what to do")


def test_a_bad_request_and_a_damaged_artifact_are_told_apart() -> None:
    assert not issubclass(BadRequest, DamagedArtifact)
    assert not issubclass(DamagedArtifact, BadRequest)
