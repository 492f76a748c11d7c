"""A PostgreSQL server of a test's own."""

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time

BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1:]


class Server:
    """A server of these tests' own, on a Unix socket."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="dedup-test-")
        self.owner = []
        self.bouncer = None
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self.owner = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                          "--clear-groups"]
        data = os.path.join(self.directory, "data")
        subprocess.run([*self.owner, f"{BIN[0]}/initdb", "-D", data, "-U", "dedup", "-A", "trust",
                        "-E", "UTF8", "--locale=C", "--no-sync"],
                       check=True, cwd="/", stdout=subprocess.DEVNULL)
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.process = subprocess.Popen(
            [*self.owner, f"{BIN[0]}/postgres", "-D", data, "-c", "listen_addresses=",
             "-c", f"unix_socket_directories={self.directory}"],
            cwd="/", stdout=self.log, stderr=self.log)
        for _ in range(1000):
            ready = subprocess.run([f"{BIN[0]}/pg_isready", "-q", "-h", self.directory], check=False)
            if ready.returncode == 0:
                return
            time.sleep(0.02)
        raise RuntimeError("the server did not start")

    def pooler(self):
        """A pgbouncer in front of it, in transaction mode, on another port of its directory."""
        port = 6432
        file = os.path.join(self.directory, "pgbouncer.ini")
        with open(file, "w", encoding="ascii") as out:
            out.write(f"[databases]\npostgres = host={self.directory} user=dedup\n[pgbouncer]\n"
                      f"listen_addr =\nlisten_port = {port}\nunix_socket_dir = {self.directory}\n"
                      "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
                      "ignore_startup_parameters = extra_float_digits\n")
        self.bouncer = subprocess.Popen([*self.owner, shutil.which("pgbouncer"), "-q", file],
                                        cwd="/", stdout=self.log, stderr=self.log)
        while not os.path.exists(os.path.join(self.directory, f".s.PGSQL.{port}")):
            if self.bouncer.poll() is not None:
                raise RuntimeError("pgbouncer did not start")
            time.sleep(0.02)
        return port

    def close(self):
        if self.bouncer is not None:
            self.bouncer.kill()
            self.bouncer.wait()
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory)

    def sql(self, text):
        """What psql gives, without decoration."""
        done = subprocess.run([f"{BIN[0]}/psql", "-XAtq", "-h", self.directory, "-U", "dedup",
                               "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text],
                              check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def url(self, schema):
        return f"postgresql://dedup:secret@/postgres?host={self.directory}&schema={schema}"
