"""The processes of a peer: its worker (bench_worker) and, for some, a server.

Only one peer runs at a time. All others are stopped by SIGSTOP meanwhile, so that what a store
does in the background costs its own time and nobody else's.
"""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import tempfile
import time

SERVERS = {"postgres": "postgres", "dedup_postgres": "postgres", "redis": "redis"}
STORE_OF = {"control": "dedup", "before": "dedup"}  # of peers that are not named by it
POSTGRES_BIN = "/usr/lib/postgresql/15/bin"
USED = ("cpu_seconds", "written_bytes", "device_bytes")  # by a piece of work
TICKS = os.sysconf("SC_CLK_TCK")


class PeerFailed(Exception):
    """A peer's process ended or answered with an error; the others can go on."""


def memory_total():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def postgres_settings(sockets):
    """What postgresql.conf gets, and why.

    fsync, synchronous_commit, full_page_writes: an acknowledged row survives power loss (these are
    the defaults; "Reliability and the Write-Ahead Log").
    shared_buffers: a quarter of the memory ("Resource Consumption"), 4 GB at most, as other stores
    run on this machine, too. effective_cache_size: the manual's half of the memory.
    max_wal_size, checkpoint_timeout: fewer checkpoints and so fewer full pages in the log, as "WAL
    Configuration" says for heavy writing.
    max_connections: more than any workload has threads.
    """
    quarter_mb = min(memory_total() // 4, 4 << 30) >> 20
    return {
        "listen_addresses": "''",
        "unix_socket_directories": f"'{sockets}'",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "shared_buffers": f"{quarter_mb}MB",
        "effective_cache_size": f"{memory_total() >> 21}MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "max_connections": "300",
    }


def redis_settings(data, sockets):
    """What redis-server gets, and why.

    appendonly, appendfsync always: no reply before the append-only file is flushed ("Redis
    persistence"). save "": no snapshots beside it, which would add nothing to what survives. A Unix
    socket only, as "Redis benchmark" advises for clients on the same machine.
    """
    return ["--port", "0", "--unixsocket", f"{sockets}/redis.sock", "--dir", data, "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--maxclients", "1000"]


def children(pid):
    """All processes below `pid`, itself first."""
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as file:
                    pids.extend(int(child) for child in file.read().split())
        except OSError:
            pass
    return pids


def proc_fields(pid, name):
    """A file of "field: number" lines below /proc; empty if the process is gone."""
    fields = {}
    try:
        with open(f"/proc/{pid}/{name}", encoding="ascii", errors="replace") as file:
            for line in file:
                field, _, rest = line.partition(":")
                words = rest.split()
                if words and words[0].isdigit():
                    fields[field] = int(words[0])
    except OSError:
        pass
    return fields


def stat_fields(pid):
    """What /proc/<pid>/stat has from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid):
    """Of the process and of its children that have ended."""
    return sum(int(field) for field in stat_fields(pid)[11:15]) / TICKS


def runs(pid):
    """Whether the process has memory still, and has not only to be waited for."""
    return stat_fields(pid)[:1] not in ([], ["Z"], ["X"])


def files_below(directory, without):
    for path, folders, files in os.walk(directory):
        folders[:] = [folder for folder in folders if folder not in without]
        for file in files:
            yield os.path.join(path, file)


def device_written_bytes(directory):
    """All that was ever written to the disk that holds the directory; 0 if that cannot be told."""
    device = os.stat(directory).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat",
                  encoding="ascii") as file:
            return int(file.read().split()[6]) * 512
    except OSError:
        return 0


class Peer:
    """One store: started, asked, stopped, killed. Its data stay until the scratch goes."""

    def __init__(self, name, worker_path, scratch):
        self.name = name
        self.server_kind = SERVERS.get(name)
        self.worker_path = worker_path
        self.data = tempfile.mkdtemp(prefix=f"{name}-", dir=scratch)
        # A socket's path has at most 107 bytes, which a data directory may well have by itself.
        self.sockets = tempfile.mkdtemp(prefix="dedup-bench-") if self.server_kind else None
        self.seed = int.from_bytes(os.urandom(6), "little")
        self.loaded = 0
        self.claimed = 0
        self.worker = None
        self.server = None
        self.log = open(os.path.join(self.data, "bench-log"), "ab")  # pylint: disable=R1732

    def start(self):
        """Returns once a loaded key has been found, if there is any; gives the seconds."""
        started = time.monotonic()
        if self.server_kind == "postgres":
            self._start_postgres()
        elif self.server_kind == "redis":
            self.server = self._spawn(["redis-server", *redis_settings(self.data, self.sockets)])
        self.worker = subprocess.Popen(  # pylint: disable=R1732
            [self.worker_path, STORE_OF.get(self.name, self.name), self.sockets or self.data,
             str(self.seed), str(self.loaded), str(self.claimed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True)
        self._answer()
        return time.monotonic() - started

    def command(self, command, **parameters):
        """Has the worker do something and gives its answer."""
        words = [command] + [f"{key}={int(value)}" for key, value in parameters.items()]
        try:
            self.worker.stdin.write((" ".join(words) + "\n").encode())
            self.worker.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._last_words()) from None
        answer = self._answer()
        self.loaded = answer.get("loaded", self.loaded)
        self.claimed = answer.get("claimed", self.claimed)
        return answer

    def measure(self, command, **parameters):
        """As command, with what it took of the machine, the server's part included."""
        before = self.usage()
        answer = self.command(command, **parameters)
        after = self.usage()
        for what in USED:
            answer[what] = after[what] - before[what]
        return answer

    def usage(self):
        pids = self._pids()
        status = [proc_fields(pid, "status") for pid in pids]
        shared = max((fields.get("RssShmem", 0) for fields in status), default=0)
        return {
            "cpu_seconds": sum(cpu_seconds(pid) for pid in pids),
            "written_bytes": sum(proc_fields(pid, "io").get("write_bytes", 0) for pid in pids),
            "device_bytes": device_written_bytes(self.data),
            # Shared buffers are one piece of memory, in however many processes.
            "own_memory_bytes": (sum(fields.get("RssAnon", 0) for fields in status) + shared) * 1024,
            "mapped_memory_bytes": sum(fields.get("RssFile", 0) for fields in status) * 1024,
        }

    def disk_bytes(self):
        """What the files take on the disk: blocks, not lengths, as some files have holes."""
        total = 0
        # PostgreSQL's log is a ring of a size of its own, whatever the number of keys.
        for path in files_below(self.data, without=("pg_wal",)):
            try:
                total += os.lstat(path).st_blocks * 512
            except FileNotFoundError:
                pass
        return total

    def read_files(self):
        """Brings the files that lookups use into memory."""
        for path in files_below(self.data, without=("pg_wal", "appendonlydir")):
            try:
                with open(path, "rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass
            except OSError:  # gone meanwhile, or a socket
                pass

    def freeze(self):
        self._signal(signal.SIGSTOP)

    def thaw(self):
        self._signal(signal.SIGCONT)

    def stop(self):
        """In good order."""
        self.thaw()
        if self.worker is not None:
            try:
                self.worker.stdin.close()
            except BrokenPipeError:
                pass
            self._wait(self.worker)
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)  # PostgreSQL's "fast"; Redis ends likewise
            self._wait(self.server)
        self.worker = self.server = None

    def kill(self):
        """As a crash would: nothing gets a word in. Returns once all processes are gone."""
        pids = self._pids()
        self._signal(signal.SIGKILL)
        for process in (self.worker, self.server):
            if process is not None:
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        try:
                            pipe.close()
                        except BrokenPipeError:
                            pass
        # A server's own children end by themselves, and until they have, it cannot be started again.
        while any(runs(pid) for pid in pids):
            time.sleep(0.001)
        self.worker = self.server = None

    def remove(self):
        if self.server_kind == "postgres" and self.server is not None:
            self.thaw()
            self.server.send_signal(signal.SIGQUIT)  # "immediate": it gives back shared memory
            self._wait(self.server)
        self.kill()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)
        if self.sockets:
            shutil.rmtree(self.sockets, ignore_errors=True)

    def _start_postgres(self):
        as_owner = []
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        cluster = os.path.join(self.data, "cluster")
        if not os.path.exists(cluster):
            os.mkdir(cluster)
            if as_owner:
                shutil.chown(cluster, "postgres", "postgres")
                shutil.chown(self.sockets, "postgres", "postgres")
                os.chmod(self.data, 0o711)
            self._run([*as_owner, f"{POSTGRES_BIN}/initdb", "-D", cluster, "-U", "postgres",
                       "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            with open(os.path.join(cluster, "postgresql.conf"), "a", encoding="ascii") as file:
                for setting, value in postgres_settings(self.sockets).items():
                    file.write(f"{setting} = {value}\n")
        self.server = self._spawn([*as_owner, f"{POSTGRES_BIN}/postgres", "-D", cluster])

    def _run(self, command):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                              check=False)
        if done.returncode != 0:
            raise PeerFailed(self._last_words())

    def _spawn(self, command):
        # Should the harness be killed, its servers go, too.
        return subprocess.Popen(["setpriv", "--pdeathsig", "INT", *command],
                                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                start_new_session=True)

    def _answer(self):
        while not select.select([self.worker.stdout], [], [], 1)[0]:
            if self.server is not None and self.server.poll() is not None:
                raise PeerFailed(f"the server has ended: {self._last_words()}")
        line = self.worker.stdout.readline()
        if not line:
            raise PeerFailed(self._last_words())
        return json.loads(line)

    def _last_words(self):
        with open(self.log.name, "rb") as file:
            return file.read()[-500:].decode(errors="replace").strip() or "it ended without a word"

    def _pids(self):
        return [pid for process in (self.worker, self.server) if process is not None
                for pid in children(process.pid)]

    def _signal(self, number):
        for pid in self._pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def _wait(self, process):
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Fleet:
    """Peers side by side; a context that leaves nothing behind."""

    def __init__(self, names, settings):
        self.peers = []
        self.failed = {}
        self.say = settings.say
        self.settings = settings
        self.order = random.Random(0)
        try:
            for name in settings.among(names):
                self.peers.append(self._new(name))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.remove()
        self.peers = []

    def _new(self, name):
        return Peer(name, self.settings.worker_of(name), self.settings.scratch)

    def each(self, work):
        """Calls work(peer) for each, one at a time, and goes on without those that fail.

        In an order that is different each time: what one has left for the disk to do, the next pays.
        """
        for peer in self.order.sample(self.peers, len(self.peers)):
            peer.thaw()
            try:
                work(peer)
            except PeerFailed as failed:
                self.say(f"  {peer.name} FAILED: {failed}")
                self.drop(peer, str(failed))
            else:
                peer.freeze()

    def renew(self, name):
        """Has an empty peer take the place of the one of this name."""
        for at, peer in enumerate(self.peers):
            if peer.name == name:
                peer.remove()
                self.peers[at] = self._new(name)

    def drop(self, peer, why):
        self.failed[peer.name] = why
        self.peers.remove(peer)
        peer.remove()
