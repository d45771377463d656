"""--mqtt, against brokers on this machine: mosquitto where it is installed, and amqtt, of the test packages."""

import json
import logging
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facemask.errors import InputError
from facemask.types import Detection, Event, FrameResult, Track
from facemask.video import mqtt
from facemask.video.frame_images import FrameImages
from facemask.video.mqtt import Broker, MqttOutput, MqttPublisher, parse_broker, topic_name
from facemask.video.outputs import Statistics
from tests.helpers import ROOT

client_module = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install paho-mqtt")

WAIT = 30  # s, for what happens in another process
LABELS = ["with_mask", "without_mask", "mask_weared_incorrect"]
IMAGES = FrameImages(np.zeros((4, 6, 3), np.uint8), FrameResult(0, 0.0, [], [], [], []))
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin")
AMQTT = Path(sys.executable).with_name("amqtt")
AMQTT_SETTINGS = """
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class BrokerProcess:
    """A broker on this machine that can be started and stopped."""

    def __init__(self, kind: str, folder: Path, options: str = "allow_anonymous true\n") -> None:
        self.port = free_port()
        if kind == "mosquitto":
            settings = folder / "mosquitto.conf"
            settings.write_text(f"listener {self.port} 127.0.0.1\n{options}")
            self._command = [MOSQUITTO, "-c", settings]
        else:
            settings = folder / "amqtt.yaml"
            settings.write_text(AMQTT_SETTINGS.format(port=self.port))
            self._command = [AMQTT, "-c", settings]
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}/shop"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "the broker has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request, tmp_path):
    if request.param == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    if request.param == "amqtt" and not AMQTT.exists():
        pytest.skip("amqtt is not installed: pip install -r requirements-test.txt")
    broker = BrokerProcess(request.param, tmp_path)
    yield broker
    broker.stop()


class Subscriber:
    """Receives everything that is published, and what is retained; `newest` holds it by topic."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, str]] = []
        self.retained: set[str] = set()
        self._client = client_module.Client(client_module.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._receive
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _receive(self, client, userdata, message) -> None:
        self.received.append((message.topic, message.payload.decode()))
        if message.retain:
            self.retained.add(message.topic)

    @property
    def newest(self) -> dict[str, str]:
        return dict(self.received)

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def face(label: str) -> Detection:
    return Detection((1, 1, 3, 3), 0.9, label, 0.9, {label: 0.9}, 1)


def person(label: str) -> Track:
    return Track(1, 0.0, 1.0, 5, label, {label: 0.9}, True, label, (1, 1, 3, 3), 0.0)


def show(output: MqttOutput, statistics: Statistics, *labels: str) -> None:
    result = FrameResult(0, 0.0, [face(label) for label in labels], [person(label) for label in labels[:1]], [], [])
    statistics.write(result, IMAGES)
    output.write(result, IMAGES)


def counts(**numbers: int) -> dict[str, int]:
    return dict.fromkeys(LABELS, 0) | numbers


def event(track: int) -> Event:
    return Event({"event": "confirmed", "track": track})


@pytest.mark.slow
def test_state_events_and_home_assistant(broker, caplog, monkeypatch):
    monkeypatch.setattr(mqtt, "INTERVAL", 0.0)
    caplog.set_level(logging.INFO, "facemask")
    broker.start()
    statistics = Statistics()
    with Subscriber(broker.port) as subscriber:
        with MqttPublisher(parse_broker(broker.url)) as publisher:
            output = MqttOutput(publisher, "camera 0", LABELS, statistics)
            wait_for(lambda: subscriber.newest.get("shop/status") == "online")
            wait_for(lambda: subscriber.newest.get("shop/camera_0/status") == "offline")  # until there is a frame
            show(output, statistics, "without_mask", "with_mask", "with_mask")
            wait_for(lambda: subscriber.newest.get("shop/camera_0/status") == "online")
            wait_for(lambda: "shop/camera_0/state" in subscriber.newest)
            assert json.loads(subscriber.newest["shop/camera_0/state"]) == {
                **counts(without_mask=1, with_mask=2),
                "people": counts(without_mask=1),
            }
            output.submit(event(7))
            wait_for(lambda: json.loads(subscriber.newest.get("shop/camera_0/event", "{}")).get("track") == 7)
            output.stalled(mqtt.STALL - 0.1)
            output.stalled(mqtt.STALL)
            wait_for(lambda: subscriber.newest["shop/camera_0/status"] == "offline")
            show(output, statistics)
            wait_for(lambda: subscriber.newest["shop/camera_0/status"] == "online")
            output.close()
        wait_for(lambda: subscriber.newest["shop/status"] == "offline")
        assert subscriber.newest["shop/camera_0/status"] == "offline"
        statuses = [payload for topic, payload in subscriber.received if topic == "shop/camera_0/status"]
        assert statuses == ["offline", "online", "offline", "online", "offline"]
    assert caplog.messages == [f"--mqtt: {broker.url}: 1 events delivered"]

    with Subscriber(broker.port) as later:  # what the broker has kept
        wait_for(lambda: len(later.newest) == 6)
        assert later.retained == later.newest.keys()
        assert json.loads(later.newest["shop/camera_0/state"]) == {**counts(), "people": counts(without_mask=1)}
        sensors = {topic: json.loads(text) for topic, text in later.newest.items() if topic.startswith("homeassistant/")}
    assert sorted(sensors) == [f"homeassistant/sensor/facemask_shop_camera_0/{label}/config" for label in sorted(LABELS)]
    sensor = sensors["homeassistant/sensor/facemask_shop_camera_0/without_mask/config"]
    assert (sensor["name"], sensor["unique_id"]) == ("No mask", "facemask_shop_camera_0_without_mask")
    assert (sensor["state_topic"], sensor["value_template"]) == ("shop/camera_0/state", "{{ value_json.without_mask }}")
    assert [each["topic"] for each in sensor["availability"]] == ["shop/status", "shop/camera_0/status"]
    assert sensor["availability_mode"] == "all"
    assert len({each["unique_id"] for each in sensors.values()}) == 3
    assert {tuple(each["device"]["identifiers"]) for each in sensors.values()} == {("facemask_shop_camera_0",)}


@pytest.mark.slow
def test_broker_that_comes_late_and_goes(broker, caplog, monkeypatch):
    """Events wait for the connection, a failure is said once, and what is retained is published again."""
    caplog.set_level(logging.INFO, "facemask")
    monkeypatch.setattr(mqtt, "RECONNECT", (1, 1))
    with MqttPublisher(parse_broker(broker.url)) as publisher:
        output = MqttOutput(publisher, "door", LABELS, Statistics())
        for track in range(3):
            output.submit(event(track))
        wait_for(lambda: len(caplog.messages) == 1)
        time.sleep(2.5)  # two further tries
        for _ in range(2):
            broker.start()
            with Subscriber(broker.port) as subscriber:
                wait_for(lambda: subscriber.newest.get("shop/status") == "online")
                wait_for(lambda: subscriber.newest.get("shop/door/status") == "offline")
            wait_for(lambda: not publisher._waiting)
            broker.stop()
            wait_for(lambda: not publisher._is_connected)
        output.submit(event(3))
        broker.start()
    failed = f"--mqtt: {broker.url}: not connected"
    assert [text.partition(" (")[0] for text in caplog.messages] == [
        failed, f"--mqtt: connected to {broker.url}",
        failed, f"--mqtt: connected to {broker.url}",
        failed, *caplog.messages[5:],
    ]  # fmt: skip
    assert caplog.messages[0] == f"{failed} (Connection refused); trying again"
    assert "events delivered" in caplog.messages[-1]


@pytest.mark.slow
def test_last_will_of_a_killed_process(broker):
    broker.start()
    code = (
        "import sys, time\n"
        "from facemask.video.mqtt import MqttPublisher, parse_broker\n"
        "MqttPublisher(parse_broker(sys.argv[1]))\n"
        "time.sleep(600)\n"
    )
    with Subscriber(broker.port) as subscriber:
        process = subprocess.Popen([sys.executable, "-c", code, broker.url], cwd=ROOT)
        try:
            wait_for(lambda: subscriber.newest.get("shop/status") == "online")
        finally:
            process.kill()
            process.wait()
        wait_for(lambda: subscriber.newest["shop/status"] == "offline")


def warnings(caplog) -> list[str]:
    """Return the messages but information, which shows only where an earlier test asked for it."""
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")
def test_password(tmp_path, caplog):
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "right: 1"], check=True, capture_output=True)
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)
    broker = BrokerProcess("mosquitto", tmp_path, f"allow_anonymous false\npassword_file {passwords}\nuser root\n")
    broker.start()
    try:
        with MqttPublisher(parse_broker(f"me:right%3A%201@{broker.url}")) as publisher:
            publisher.publish_event("shop/event", "{}")
            wait_for(lambda: publisher._is_connected)
        assert publisher.delivered == 1 and warnings(caplog) == []
        with MqttPublisher(parse_broker(f"me:secret@{broker.url}")) as publisher:
            publisher.publish_event("shop/event", "{}")
            wait_for(lambda: publisher._is_failing)
        assert warnings(caplog) == [
            f"--mqtt: {broker.url}: not connected (the broker refuses: Not authorized); trying again",
            f"--mqtt: {broker.url}: 0 events delivered, 1 not delivered",
        ]
    finally:
        broker.stop()


def test_events_without_a_broker_are_counted_and_nothing_waits(monkeypatch, caplog):
    monkeypatch.setattr(mqtt, "MAX_WAITING", 2)
    name = f"127.0.0.1:{free_port()}/shop"
    with MqttPublisher(parse_broker(name)) as publisher:
        wait_for(lambda: publisher._is_failing)
        for track in range(5):
            publisher.publish_event("shop/event", str(track))
    assert caplog.messages[1:] == [
        f"--mqtt: 2 events wait for {name}; more are dropped",
        f"--mqtt: {name}: 0 events delivered, 2 not delivered, 3 dropped",
    ]


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("desk/shop", Broker("desk", 1883, "shop", None, None, False), "desk:1883/shop"),
        ("me@desk/shop/door/", Broker("desk", 1883, "shop/door", "me", None, False), "desk:1883/shop/door"),
        ("me:a%40b@desk:1884/shop", Broker("desk", 1884, "shop", "me", "a@b", False), "desk:1884/shop"),
        ("mqtt://[::1]/shop", Broker("::1", 1883, "shop", None, None, False), "[::1]:1883/shop"),
        ("mqtts://desk/shop", Broker("desk", 8883, "shop", None, None, True), "desk:8883/shop"),
    ],
)
def test_parse_broker(text, expected, name):
    assert parse_broker(text) == expected
    assert parse_broker(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "desk",
        "desk/",
        "/shop",
        "desk:x/shop",
        "desk:70000/shop",
        "desk/shop/#",
        "desk/+/a",
        "http://desk/shop",
        "me:secret@/a",
    ],
)
def test_not_a_broker(text):
    with pytest.raises(InputError) as error:
        parse_broker(text)
    assert str(error.value) == (
        "--mqtt: not a broker and a topic; give HOST/TOPIC, USER:PASSWORD@HOST:1883/TOPIC or mqtts://HOST/TOPIC"
    )


@pytest.mark.parametrize(
    ("text", "name"), [("camera 0", "camera_0"), ("rtsp://door/1?a=#+", "rtsp_door_1_a"), ("/#", "source"), ("Tür", "T_r")]
)
def test_topic_name(text, name):
    assert topic_name(text) == name


def test_each_source_has_a_topic_of_its_own():
    with MqttPublisher(Broker("127.0.0.1", free_port(), "shop", None, None, False)) as publisher:
        assert [publisher.topic_of(name) for name in ("a b", "a_b", "c")] == ["shop/a_b", "shop/a_b_2", "shop/c"]


def test_missing_package_is_one_line():
    code = "import sys; sys.modules['paho'] = None; import detect_mask_video as d; sys.exit(d.main(sys.argv[1:]))"
    arguments = ["-i", "none.mp4", "--mqtt", "127.0.0.1/shop", "--no-show"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("error: paho") and "Traceback" not in done.stderr
    assert last.endswith(": is not installed; pip install -r requirements-notify.txt")
