"""Three PostgreSQL servers with Patroni and etcd on loopback, and what can happen to them.

Clients reach each server through a proxy of its own, so that its network can be cut. Replication is
synchronous and strict: a primary without a standby acknowledges nothing.
"""

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

NAMES = ("one", "two", "three")
TTL = 15  # seconds until a leader that is silent has lost its lock
BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:]


def missing():
    """What this machine lacks; None if the cluster can be run."""
    for program in ("patroni", "etcd", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed: run tools/setup --ci"
    return None if BIN else "no PostgreSQL server is installed: run tools/setup"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Proxy:
    """Passes bytes on between clients and one server, or not while its network is cut."""

    def __init__(self, target):
        self.target = target
        self.cut = threading.Event()
        self.open = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        with self.lock:
            self.open |= {client, server}
        other = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        other.start()
        self._pump(client, server)
        other.join()
        with self.lock:
            self.open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source, sink):
        try:
            while data := source.recv(65536):
                while self.cut.is_set():  # silence, as of a cable that is pulled
                    time.sleep(0.05)
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def drop(self):
        """Ends all connections."""
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Node:
    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.port = free_port()
        self.rest = free_port()
        self.proxy = Proxy(self.port)
        self.home = os.path.join(cluster.directory, name)
        self.process = None

    def config(self):
        hosts = "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"
        return {
            "scope": "dedup", "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}",
                        "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"host": f"127.0.0.1:{self.cluster.etcd_port}"},
            "bootstrap": {
                "dcs": {"ttl": TTL, "loop_wait": 3, "retry_timeout": 4,
                        "maximum_lag_on_failover": 1048576,
                        "synchronous_mode": True, "synchronous_mode_strict": True,
                        "postgresql": {"use_pg_rewind": True, "parameters": {
                            "shared_buffers": "32MB", "max_connections": 60, "wal_log_hints": "on",
                            "synchronous_commit": "on", "unix_socket_directories": ""}}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": os.path.join(self.home, "data"), "bin_dir": BIN[0],
                "pgpass": os.path.join(self.home, "pgpass"), "pg_hba": list(hosts),
                "parameters": {"unix_socket_directories": ""},
                "authentication": {"superuser": {"username": "postgres", "password": "p"},
                                   "replication": {"username": "replica", "password": "p"},
                                   "rewind": {"username": "rewind", "password": "p"}}},
        }

    def start(self):
        os.makedirs(self.home, exist_ok=True)
        self.cluster.own(self.home)
        file = os.path.join(self.home, "patroni.json")
        with open(file, "w", encoding="utf-8") as out:
            json.dump(self.config(), out)  # which is YAML, too
        self.process = self.cluster.spawn(["patroni", file], self.home)

    def pids(self):
        """Patroni's and those of its server."""
        found = [self.process.pid]
        try:
            with open(os.path.join(self.home, "data", "postmaster.pid"), encoding="ascii") as file:
                postmaster = int(file.readline())
        except (OSError, ValueError):
            return found
        found.append(postmaster)
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(stat, encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == postmaster:
                found.append(int(stat.split("/")[2]))
        return found

    def signal(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """Patroni and its server at once, as a machine that loses its power."""
        self.signal(signal.SIGSTOP)  # so that none restarts another
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.proxy.drop()

    def has_heir(self):
        """Whether Patroni has written down who may lead next, which it does a little after that one
        has become synchronous: without, nobody does."""
        members = self.ask("cluster").get("members", [])
        return any(member.get("role") == "sync_standby" for member in members)

    def role(self):
        return self.ask("patroni")

    def ask(self, what):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/{what}", timeout=2) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except (OSError, ValueError):
            return {}


class Cluster:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="dedup-cluster-")
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.own(self.directory)
        self.etcd_port, peers = free_port(), free_port()
        data = os.path.join(self.directory, "etcd")
        os.mkdir(data, 0o700)
        self.own(data)
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peers}"
        self.etcd = self.spawn(
            ["etcd", "--data-dir", data, "--listen-client-urls", client,
             "--advertise-client-urls", client, "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
             "--unsafe-no-fsync"], self.directory)
        self.nodes = [Node(self, name) for name in NAMES]
        for node in self.nodes:
            node.start()
        self.wait(self.healthy, 180, "the cluster to start")

    def own(self, path):
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def spawn(self, command, home):
        owner = []
        if self.user is not None:
            owner = ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}",
                     "--clear-groups", "--pdeathsig", "KILL"]
        with open(os.path.join(home, "log"), "ab") as log:
            return subprocess.Popen([*owner, *command], cwd="/", stdout=log, stderr=log,
                                    start_new_session=True)

    def url(self):
        hosts = ",".join(f"127.0.0.1:{node.proxy.port}" for node in self.nodes)
        return f"postgresql://postgres:p@{hosts}/postgres"

    def leader(self):
        for node in self.nodes:
            role = node.role()
            if role.get("role") in ("master", "primary") and role.get("state") == "running":
                return node
        return None

    def healthy(self):
        """One leads, and the others stream from it, one of them synchronously."""
        leader = self.leader()
        if leader is None:
            return False
        streaming = leader.role().get("replication", [])
        return (sum(1 for each in streaming if each.get("state") == "streaming") == 2
                and any(each.get("sync_state") == "sync" for each in streaming)
                and leader.has_heir())

    def wait(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for {what}; see {self.directory}")
            time.sleep(0.3)

    def sql(self, node, text):
        subprocess.run([f"{BIN[0]}/psql", "-XAtq", "-h", "127.0.0.1", "-p", str(node.port), "-U",
                        "postgres", "-c", text], check=False, timeout=30,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self, keep):
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.signal(signal.SIGCONT)
                node.kill()
        self.etcd.kill()
        self.etcd.wait()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)
