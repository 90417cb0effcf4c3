import numpy as np
import orjson

from service.api import responses


def test_arrays_become_lists_whose_numbers_read_back_alike():
    given = {"labels": np.array([7], np.int64), "probabilities": np.array([[0.1, 0.9]], np.float32)}
    content = responses.dumps(given)
    assert content == b'{"labels":[7],"probabilities":[[0.1,0.9]]}'
    read = np.array(orjson.loads(content)["probabilities"], np.float32)
    np.testing.assert_array_equal(read, given["probabilities"])


def test_an_answer_has_the_type_of_json_and_its_status():
    answer = responses.json_response({"error": "no"}, 400)
    assert (answer.status_code, answer.content_type) == (400, "application/json")
    assert answer.get_data() == b'{"error":"no"}'
