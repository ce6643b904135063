"""Signals are taken for a while, and given back."""

import os
import signal
import threading

from sweeps.runs.signals import STOP, handling, noted


def test_signals_are_noted_and_then_do_what_they_did():
    before = [signal.getsignal(number) for number in STOP]
    with noted() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert told == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in STOP] == before


def test_the_end_of_a_terminal_is_a_wish_to_stop_unless_nohup_let_it_be_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with noted() as told:
            os.kill(os.getpid(), signal.SIGHUP)
        assert told == [signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with noted() as told:
            os.kill(os.getpid(), signal.SIGHUP)
        assert told == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_those_asked_for_are_taken():
    before = signal.getsignal(signal.SIGINT)
    acted = []
    with handling(acted.append, signal.SIGUSR1):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGINT) == before
    assert acted == [signal.SIGUSR1]


def test_a_thread_leaves_them_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with noted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
