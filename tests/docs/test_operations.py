"""The API's description shows the pages' examples, and they are what it describes."""

import json

from service.web.openapi import description
from tests.docs.operations import PATH, examples
from tests.support.openapi import is_described


def test_the_examples_are_those_of_the_pages() -> None:
    assert json.loads(PATH.read_text("utf-8")) == examples()


def test_every_operation_that_answers_json_of_ours_has_an_example_of_its_shape() -> None:
    for path, operations in description()["paths"].items():
        for operation in operations.values():
            answer = operation["responses"]["200"]["content"].get("application/json", {})
            if "$ref" in answer.get("schema", {}):
                assert is_described(answer["example"], answer["schema"]["$ref"].rpartition("/")[2]), path
