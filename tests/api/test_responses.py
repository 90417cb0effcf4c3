import numpy as np
import orjson

from service.api import responses


def test_arrays_survive_a_round_trip_through_json():
    payload = {
        "labels": np.array([7], np.int64),
        "probabilities": np.array([[0.1, 0.9]], np.float32),
    }
    content = responses.dumps(payload)
    assert content == b'{"labels":[7],"probabilities":[[0.1,0.9]]}'
    decoded = np.array(orjson.loads(content)["probabilities"], np.float32)
    np.testing.assert_array_equal(decoded, payload["probabilities"])


def test_a_response_has_its_status_and_the_json_content_type():
    answer = responses.json_response({"error": "no"}, 400)
    assert (answer.status_code, answer.content_type) == (400, "application/json")
    assert answer.get_data() == b'{"error":"no"}'
