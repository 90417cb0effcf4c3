def test_health_names_the_pinned_version(client, artifact):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "version": artifact.version}
