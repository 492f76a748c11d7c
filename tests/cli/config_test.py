"""Global options from files, the environment and the command line, in the order that is promised."""

import os
import subprocess

import cli
from cli import DONE_ERROR, ERROR, EXEC_ERROR, OK, USAGE


class Config(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.beside = self.path("dedup.toml")
        self.users = self.path("user/dedup/dedup.toml")
        os.makedirs(os.path.dirname(self.users))
        self.variables = {"DEDUP_CONFIG": "", "XDG_CONFIG_HOME": self.path("user")}

    def environment(self):
        return dict(super().environment(), **self.variables)

    def write(self, path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def options(self, *arguments):
        shown = self.dedupctl(*arguments, "--json", "config", expect=OK).json
        return {row["name"]: (row["value"], row["from"]) for row in shown["options"]}

    def test_who_comes_first(self):
        self.assertEqual(self.options()["namespace"], ("default", "default"))
        self.write(self.users, 'namespace = "user"\nlock-timeout = "1s"\nutc = true\n')
        self.assertEqual(self.options()["namespace"], ("user", self.users + ":1"))
        self.write(self.beside, 'namespace = "beside"\nutc = false\n')
        options = self.options()
        self.assertEqual(options["namespace"], ("beside", self.beside + ":1"))
        self.assertEqual(options["utc"], ("false", self.beside + ":2"))
        self.assertEqual(options["lock-timeout"], ("1s", self.users + ":2"))
        self.variables["DEDUP_NAMESPACE"] = "environment"
        self.assertEqual(self.options()["namespace"], ("environment", "$DEDUP_NAMESPACE"))
        self.assertEqual(self.options("-n", "given")["namespace"], ("given", "command line"))
        self.variables["DEDUP_CONFIG"] = "/dev/null"
        self.assertEqual(self.options()["lock-timeout"], ("30s", "default"))

    def test_commands_go_by_them(self):
        self.write(self.beside, 'namespace = "beside"\njson = true\n')
        self.assertEqual(self.dedupctl("remember", "k", expect=OK).json["namespace"], "beside")
        self.assertEqual(self.dedupctl("-n", "default", "lookup", "k", expect=cli.ABSENT).json["outcome"],
                         "absent")

    def test_the_store_of_the_users_file(self):
        self.variables["DEDUP_STORE"] = ""
        self.write(self.users, 'store = "../there"\n')
        self.assertEqual(self.options()["store"], (self.path("user/there"), self.users + ":1"))
        self.dedupctl("init", expect=OK)
        self.assertTrue(os.path.isdir(self.path("user/there")))

    def test_files_that_are_wrong(self):
        for text, words in (('namespase = "x"', [":1: ", "'namespase' is no global option"]),
                            ("\n[claim]\nttl = 1", [":2: ", "'claim'"]),
                            ('utc = "yes"', ["'utc' is either true or false"]),
                            ("namespace = 3", ["'namespace' is a text"]),
                            ('namespace = "a', [":1: "]),
                            ('\xff = 1', [":1: "]),
                            ('store = "x"', ["cannot stand", self.users]),
                            ("namespace = orders", [":1: ", "texts stand in quotes"]),
                            ('namespace = "\\u0000"', [self.beside + ":1: namespace: "]),
                            ('lock-timeout = "5"', [self.beside + ":1: lock-timeout: ", "has no unit"])):
            with self.subTest(text):
                self.write(self.beside, text)
                self.assertInError(words, self.dedupctl("ls", expect=USAGE))
        shown = self.dedupctl("config", expect=USAGE)
        self.assertRegex(shown.text, "lock-timeout +5 +" + self.beside + ":1")
        self.assertInError(self.beside + ":1: lock-timeout: '5' has no unit", shown)
        self.assertIn("has no unit", self.dedupctl("--json", "config", expect=USAGE).json["problem"])
        self.variables["DEDUP_LOCK_TIMEOUT"] = "6"
        self.assertInError("DEDUP_LOCK_TIMEOUT: '6' has no unit", self.dedupctl("ls", expect=USAGE))
        self.assertInError("--lock-timeout: '7' has no unit",
                           self.dedupctl("ls", "--lock-timeout", "7", expect=USAGE))
        self.dedupctl("--help", expect=OK)
        self.variables["DEDUP_CONFIG"] = "/nowhere"
        self.assertInError(["DEDUP_CONFIG", "/nowhere"], self.dedupctl("ls", expect=USAGE))
        self.variables["DEDUP_CONFIG"] = self.dir
        self.assertInError([self.dir, "Is a directory"], self.dedupctl("ls", expect=ERROR))
        # Where 1 is an answer, or the command's, it is never an error.
        self.dedupctl("done", "k", expect=DONE_ERROR)
        self.dedupctl("exec", "--key", "k", "--", "true", expect=EXEC_ERROR)

    def test_a_place_that_is_closed_to_this_user_has_no_file(self):
        self.dedupctl("remember", "k", expect=OK)
        closed = self.path("closed")
        os.makedirs(closed, mode=0)
        self.addCleanup(os.chmod, closed, 0o700)
        self.variables["XDG_CONFIG_HOME"] = closed
        if os.geteuid() == 0:
            os.chmod(self.dir, 0o755)
            for directory, _, files in os.walk(self.store):
                for name in [directory] + [os.path.join(directory, file) for file in files]:
                    os.chown(name, 65534, 65534)
            as_other = subprocess.run(
                ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                 cli.DEDUPCTL, "-s", self.store, "done", "k"],
                env=self.environment(), capture_output=True, check=False, timeout=cli.HANG_SECONDS)
            self.assertEqual((as_other.returncode, as_other.stderr), (OK, b""))
        else:
            self.dedupctl("done", "k", expect=OK)


if __name__ == "__main__":
    cli.main()
