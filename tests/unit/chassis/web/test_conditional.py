import pytest

from chassis.web.conditional import is_known

TAG = '"a,b.1"'


@pytest.mark.parametrize(
    "field", [TAG, f"W/{TAG}", f'"other", {TAG}', f'"other",W/{TAG} , "x"', "*", " * "]
)
def test_an_answer_is_known_by_its_tag_strong_or_weak(field: str) -> None:
    assert is_known(TAG, field)


@pytest.mark.parametrize("field", [None, "", '"a', "a,b.1", '"a,b.10"', '"A,B.1"', '"*"', '""'])
def test_another_answer_is_not_known(field: str | None) -> None:
    assert not is_known(TAG, field)
