"""service/compose.yaml and service/kubernetes.yaml: their schemas, and how they run the service.

No test starts them: that takes Docker and a cluster. tests/test_image.py runs the image itself.
"""

import re
import subprocess

import pytest
import yaml

from service import supervisor
from tests.conftest import ENVIRONMENT, PROJECT

DOCKERFILE = (PROJECT / "service/Dockerfile").read_text()
COMPOSE = PROJECT / "service/compose.yaml"
KUBERNETES = PROJECT / "service/kubernetes.yaml"
SERVICE = yaml.safe_load(COMPOSE.read_text())["services"]["mnist"]
DEPLOYMENT, CLUSTER_SERVICE, BUDGET = yaml.safe_load_all(KUBERNETES.read_text())
POD = DEPLOYMENT["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
# As `make lint` validates them.
VALIDATORS = {
    COMPOSE: ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
    KUBERNETES: ["kubernetes-validate", "--strict"],
}


def validate(file, like):
    command = [*VALIDATORS[like], str(file)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_compose_yaml_has_the_schema_of_compose():
    assert validate(COMPOSE, COMPOSE).returncode == 0


def test_each_object_in_kubernetes_yaml_has_its_schema():
    done = validate(KUBERNETES, KUBERNETES)
    passed = re.findall(r"passed for resource (\w+)/mnist ", done.stdout)
    assert (done.returncode, passed) == (0, ["deployment", "service", "poddisruptionbudget"])


@pytest.mark.parametrize(
    ("file", "key"), [(COMPOSE, "read_only"), (KUBERNETES, "readOnlyRootFilesystem")]
)
def test_the_schemas_refuse_an_unknown_key(tmp_path, file, key):
    wrong = tmp_path / file.name
    wrong.write_text(file.read_text().replace(key, f"{key}s"))
    assert validate(wrong, file).returncode == 1


def image_variables():
    """Return the variables that the Dockerfile sets for the service."""
    return dict(re.findall(r"\b(MNIST_\w+)=(\S+)", DOCKERFILE)) | {"MNIST_PIN": 64 * "0"}


@pytest.fixture
def options_with(options):
    """A function that returns the options of the service in an image, with more variables."""
    return lambda variables: options(**(image_variables() | variables))


def pod_variables():
    return {variable["name"]: variable["value"] for variable in CONTAINER["env"]}


@pytest.mark.parametrize("variables", [{}, SERVICE["environment"], pod_variables()])
def test_the_service_knows_all_variables_and_drains(options_with, variables):
    options = options_with(variables)
    assert (options.host, options.drain) == ("0.0.0.0", 5)
    assert options.workers == int(variables.get("MNIST_WORKERS", options.workers))


def test_all_wait_until_the_service_has_drained(options_with):
    longest = options_with({}).drain + supervisor.STOP_TIMEOUT
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > longest
    assert POD["spec"]["terminationGracePeriodSeconds"] > longest


def test_all_use_the_port_of_the_image(options_with):
    port = options_with({}).port
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert SERVICE["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert CONTAINER["ports"] == [{"name": "http", "containerPort": port}]
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert CLUSTER_SERVICE["spec"]["ports"][0]["targetPort"] == "http"


def test_all_run_as_the_user_of_the_image_with_a_read_only_root_and_a_tmp():
    [user] = re.findall(r"(?m)^USER (.*)", DOCKERFILE)
    pod, container = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == user
    assert pod["runAsNonRoot"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in CONTAINER["volumeMounts"]] == ["/tmp"]  # noqa: S108
    assert SERVICE["read_only"]
    assert SERVICE["tmpfs"][0].startswith("/tmp:")  # noqa: S108
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]


def test_a_volume_is_where_the_user_of_the_image_may_keep_corrections():
    [user] = re.findall(r"(?m)^USER (.*):", DOCKERFILE)
    folder = "/var/lib/mnist"
    assert f"--owner={user} --group={user} --mode=700 {folder}\n" in DOCKERFILE
    assert SERVICE["volumes"] == [f"corrections:{folder}"]
    for file in (DOCKERFILE, COMPOSE.read_text(), KUBERNETES.read_text()):
        assert f"{folder}/feedback" in file


def test_both_limit_the_service_alike():
    limits = CONTAINER["resources"]["limits"]
    # Both are powers of 1024. Kubernetes writes them with an i, and Compose in lower case.
    assert limits["memory"].removesuffix("i").lower() == SERVICE["mem_limit"]
    assert int(limits["cpu"]) == SERVICE["cpus"]
    assert int(limits["cpu"]) == int(pod_variables()["MNIST_WORKERS"])


def test_kubernetes_asks_for_health_and_readiness():
    probes = {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    for name, path in probes.items():
        assert CONTAINER[f"{name}Probe"]["httpGet"] == {"path": path, "port": "http"}


def test_kubernetes_keeps_a_pod_running():
    labels = POD["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert CLUSTER_SERVICE["spec"]["selector"] == labels
    assert BUDGET["spec"]["selector"]["matchLabels"] == labels
    assert 0 < BUDGET["spec"]["minAvailable"] < DEPLOYMENT["spec"]["replicas"]
    # The variables for a Service of this name begin with the prefix of the service's own.
    assert CLUSTER_SERVICE["metadata"]["name"] == "mnist"
    assert POD["spec"]["enableServiceLinks"] is False
