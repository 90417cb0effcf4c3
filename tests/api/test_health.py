def test_health_names_the_pinned_hashes(client, artifact):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    hashes = {"version": artifact.version, "sha256": artifact.sha256}
    assert answer.json() == {"status": "ok", **hashes}
