"""Publish the counts and events of each source over MQTT, and describe them to Home Assistant."""

import json
import logging
import math
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from facemask.errors import InputError
from facemask.labels import WITH_MASK, display_name
from facemask.types import Event, FrameResult
from facemask.video.frame_images import FrameImages
from facemask.video.outputs import FrameOutput, Statistics

PORT, TLS_PORT = 1883, 8883
DISCOVERY = "homeassistant"  # Home Assistant's prefix of descriptions, as it is unless somebody changes it
MAX_WAITING = 100  # events, while there is no connection; more are dropped
INTERVAL = 1.0  # s at least between two states of a source
STALL = 4.0  # s without a frame, after which a source is offline
KEEP_ALIVE = 30  # s without a message, after which client and broker look whether the other is there
CONNECT_TIMEOUT = 5.0  # s
RECONNECT = 1, 30  # s between two tries to connect: at first, and at most
EXIT_TIMEOUT = 5.0  # s at the end for what has not been delivered
ONLINE, OFFLINE = "online", "offline"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broker:
    """Where to publish: `name` is what messages call it, without the password."""

    host: str
    port: int
    topic: str
    user: str | None
    password: str | None
    tls: bool

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.topic}"


def parse_broker(text: str) -> Broker:
    """Parse [USER[:PASSWORD]@]HOST[:PORT]/TOPIC, with mqtts:// before it for TLS. Raises InputError if it is not that."""
    try:
        parts = urlsplit(text if "://" in text else f"mqtt://{text}")
        tls, port, topic = parts.scheme == "mqtts", parts.port, unquote(parts.path).strip("/")
    except ValueError:  # as of a port that is not a number
        topic = ""
    is_one_topic = topic and not set(topic + text.rpartition("@")[2]) & set("+#?\0")
    if not is_one_topic or not parts.hostname or parts.scheme not in ("mqtt", "mqtts"):
        # The text is not shown: it may have a password
        raise InputError("--mqtt: not a broker and a topic; give HOST/TOPIC, USER:PASSWORD@HOST:1883/TOPIC or mqtts://HOST/TOPIC")
    user, password = (unquote(part) if part is not None else None for part in (parts.username, parts.password))
    return Broker(parts.hostname, port or (TLS_PORT if tls else PORT), topic, user or None, password, tls)


def topic_name(text: str) -> str:
    """Return `text` as a level of a topic, and an ID that Home Assistant accepts: letters, digits and _."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "source"


class MqttPublisher(AbstractContextManager):
    """A connection to a broker, kept up in a thread of its own: no call waits for the network.

    What is retained is published again after each reconnection. Events that come up without a connection wait; of more
    than MAX_WAITING the last are dropped, and counted. A failure is said once, until the connection is back.
    """

    def __init__(self, broker: Broker) -> None:
        """Begin to connect, and return at once. Raises ImportError if paho-mqtt is not installed."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.broker = broker
        self.delivered = self.dropped = 0  # events
        self._topics: Counter[str] = Counter()  # of sources
        self._retained: dict[str, str] = {}  # the newest payload of each retained topic
        self._waiting: deque[tuple[str, str]] = deque()  # topics and payloads of events that come up without a connection
        self._sent: deque = deque()  # paho's receipts for events
        self._lock = threading.RLock()
        self._is_connected = self._is_failing = False
        self.status_topic = f"{broker.topic}/status"

        self._client = client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect, client.on_disconnect, client.on_connect_fail = self._connected, self._disconnected, self._not_connected
        client.will_set(self.status_topic, OFFLINE, qos=1, retain=True)
        client.max_queued_messages_set(MAX_WAITING)
        client.reconnect_delay_set(*RECONNECT)
        client.connect_timeout = CONNECT_TIMEOUT
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        self.retain(self.status_topic, ONLINE)
        client.connect_async(broker.host, broker.port, KEEP_ALIVE)
        client.loop_start()

    def topic_of(self, source: str) -> str:
        """Return a topic for a source that no other one of this run has."""
        topic = f"{self.broker.topic}/{topic_name(source)}"
        self._topics[topic] += 1
        return topic if self._topics[topic] == 1 else f"{topic}_{self._topics[topic]}"

    def retain(self, topic: str, payload: str) -> None:
        """Publish what is to be kept by the broker, for those who subscribe later; of what cannot be sent now, the newest."""
        with self._lock:
            self._retained[topic] = payload
            if self._is_connected:
                self._client.publish(topic, payload, qos=0, retain=True)

    def publish_event(self, topic: str, payload: str) -> None:
        """Publish an event; the broker confirms it."""
        with self._lock:
            self._count_delivered()
            if len(self._waiting) + len(self._sent) >= MAX_WAITING:
                if not self.dropped:
                    logger.warning("--mqtt: %d events wait for %s; more are dropped", MAX_WAITING, self.broker.name)
                self.dropped += 1
            elif self._is_connected:
                self._sent.append(self._client.publish(topic, payload, qos=1))
            else:
                self._waiting.append((topic, payload))

    def _connected(self, client, userdata, flags, reason, properties) -> None:
        if reason.is_failure:  # as of a wrong password; paho tries again
            self._fail(f"the broker refuses: {reason}")
            return
        with self._lock:
            if self._is_failing:
                logger.info("--mqtt: connected to %s", self.broker.name)
            self._is_connected, self._is_failing = True, False
            for topic, payload in self._retained.items():
                client.publish(topic, payload, qos=0, retain=True)
            while self._waiting:
                topic, payload = self._waiting.popleft()
                self._sent.append(client.publish(topic, payload, qos=1))

    def _disconnected(self, client, userdata, flags, reason, properties) -> None:
        self._is_connected = False
        if reason.is_failure:
            self._fail(f"the connection is lost: {reason}")

    def _not_connected(self, client, userdata) -> None:
        error = sys.exc_info()[1]  # paho calls this where it handles the error
        self._fail(str(getattr(error, "strerror", None) or error or "no answer"))

    def _fail(self, why: str) -> None:
        if not self._is_failing:
            logger.warning("--mqtt: %s: not connected (%s); trying again", self.broker.name, why)
        self._is_failing = True

    def _count_delivered(self) -> None:
        while self._sent and _is_delivered(self._sent[0]):
            self._sent.popleft()
            self.delivered += 1

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + EXIT_TIMEOUT
        farewell = self._client.publish(self.status_topic, OFFLINE, qos=1, retain=True) if self._is_connected else None
        while self._is_connected and time.monotonic() < deadline:
            with self._lock:
                self._count_delivered()
                if not self._waiting and not self._sent and (farewell is None or _is_delivered(farewell)):
                    break
            time.sleep(0.01)
        self._count_delivered()
        self._client.disconnect()
        if self._is_connected:
            self._client.loop_stop()
        lost = len(self._waiting) + len(self._sent)
        losses = [f"{number} {what}" for number, what in ((lost, "not delivered"), (self.dropped, "dropped")) if number]
        if losses or self.delivered:
            counts = ", ".join([f"{self.delivered} events delivered", *losses])
            logger.log(logging.WARNING if losses else logging.INFO, "--mqtt: %s: %s", self.broker.name, counts)


def _is_delivered(receipt) -> bool:
    try:
        return receipt.is_published()
    except (RuntimeError, ValueError):  # it could not be sent at once
        return False


class MqttOutput(FrameOutput):
    """Publishes the state of one source: whether it gives frames, the faces now by label, and the people so far.

    Below the broker's topic and the source's name: `status`, `state` and `event`.
    """

    def __init__(self, publisher: MqttPublisher, source: str, labels: Sequence[str], statistics: Statistics) -> None:
        """`source` is unique in the run. `statistics` must receive each frame before this output does."""
        self._publisher, self._statistics = publisher, statistics
        self._keys = {label: topic_name(label) for label in labels}  # in the state
        self._topic = publisher.topic_of(source)
        self._last = -math.inf  # when the state was published
        self._state: dict | None = None
        self._describe(source)
        publisher.retain(f"{self._topic}/status", OFFLINE)
        self._is_online = False

    def write(self, result: FrameResult, images: FrameImages) -> None:
        self._set_online(True)
        state = self._state_of(Counter(face.label for face in result.faces if face.zone is not None))
        if state != self._state and time.monotonic() - self._last >= INTERVAL:
            self._publish(state)

    def stalled(self, seconds: float) -> None:
        if seconds >= STALL:
            self._set_online(False)

    def submit(self, event: Event) -> None:
        """Receive an event of this source."""
        self._publisher.publish_event(f"{self._topic}/event", json.dumps(event.record))

    def close(self) -> None:
        self._publish(self._state_of(Counter()))
        self._set_online(False)

    def _state_of(self, now: Counter[str]) -> dict:
        return {**self._count(now), "people": self._count(self._statistics.people)}

    def _count(self, numbers: Counter[str]) -> dict[str, int]:
        return {key: numbers[label] for label, key in self._keys.items()}

    def _publish(self, state: dict) -> None:
        self._state, self._last = state, time.monotonic()
        self._publisher.retain(f"{self._topic}/state", json.dumps(state))

    def _set_online(self, is_online: bool) -> None:
        if is_online != self._is_online:
            self._publisher.retain(f"{self._topic}/status", ONLINE if is_online else OFFLINE)
        self._is_online = is_online

    def _describe(self, source: str) -> None:
        """Publish for Home Assistant a device for this source, and a sensor for the number of faces with each label."""
        device = topic_name(f"facemask_{self._topic}")
        availability = [{"topic": topic} for topic in (self._publisher.status_topic, f"{self._topic}/status")]
        for label, key in self._keys.items():
            sensor = {
                "name": display_name(label),
                "unique_id": f"{device}_{key}",
                "state_topic": f"{self._topic}/state",
                "value_template": f"{{{{ value_json.{key} }}}}",
                "state_class": "measurement",
                "unit_of_measurement": "people",
                "icon": "mdi:face-mask" if label == WITH_MASK else "mdi:face-mask-outline",
                "availability": availability,
                "availability_mode": "all",
                "device": {"identifiers": [device], "name": f"Face masks: {source}", "manufacturer": "facemask-detector"},
                "origin": {"name": "facemask-detector"},
            }
            self._publisher.retain(f"{DISCOVERY}/sensor/{device}/{key}/config", json.dumps(sensor))
