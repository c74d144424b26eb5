use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// Returns a session of set 3 that listens.
fn listening() -> SetSession {
    let mut session = SetSession::default();
    session.found(3);
    session.opened(None, at(0));
    session
}

#[test]
fn a_set_is_found_then_a_session_is_opened_and_polled_from_the_beginning() {
    let mut session = SetSession::default();
    assert_eq!(session.next(at(0)), Ok(SetStep::Find));
    assert_eq!(session.state(), SetState::Connecting);
    session.found(3);
    assert_eq!(session.next(at(0)), Ok(SetStep::Open(3)));
    session.opened(None, at(0));
    assert_eq!(session.next(at(0)), Ok(SetStep::Poll(0)));
    assert_eq!(session.state(), SetState::Listening);
}

#[test]
fn a_message_is_deleted_after_it_is_on_record_and_the_next_one_is_asked_for() {
    let mut session = listening();
    assert!(!session.polled(Polled::Recorded(100_000_009), at(1)));
    assert_eq!(session.next(at(1)), Ok(SetStep::Acknowledge(100_000_009)));
    session.acknowledged(100_000_009);
    assert_eq!(session.next(at(1)), Ok(SetStep::Poll(100_000_009)));
    // GitHub started the ids anew.
    session.polled(Polled::Recorded(100_000_001), at(2));
    session.acknowledged(100_000_001);
    assert_eq!(session.next(at(2)), Ok(SetStep::Poll(100_000_001)));
}

#[test]
fn a_message_that_is_not_on_record_is_not_deleted_and_comes_again() {
    let mut session = listening();
    for _ in 0..10 {
        session.polled(Polled::NotRecorded, at(0));
    }
    assert!(session.next(at(0)).is_err());
    assert_eq!(session.next(at(600)), Ok(SetStep::Poll(0)));
    assert_eq!(session.state(), SetState::Failing);
}

#[test]
fn a_message_that_cannot_be_read_is_given_up_at_its_third_delivery() {
    let mut session = listening();
    for second in [0, 5] {
        assert!(!session.polled(Polled::Unreadable(9), at(second)));
        assert_eq!(session.next(at(second)), Err(at(second + 5)));
        assert_eq!(session.next(at(second + 5)), Ok(SetStep::Poll(0)));
    }
    assert!(session.polled(Polled::Unreadable(9), at(10)));
    assert_eq!(session.next(at(10)), Ok(SetStep::Acknowledge(9)));
    session.acknowledged(9);
    assert_eq!(session.next(at(10)), Ok(SetStep::Poll(9)));
}

#[test]
fn the_session_of_a_killed_daemon_is_waited_for() {
    let mut session = SetSession::default();
    session.found(3);
    let mut second = 0;
    while second < 92 {
        assert_eq!(session.next(at(second)), Ok(SetStep::Open(3)));
        session.failed(SetTrouble::Occupied, at(second));
        assert_eq!(session.state(), SetState::Occupied);
        assert!(!session.is_occupied_too_long(at(second)));
        second += 5;
        assert_eq!(session.next(at(second - 1)), Err(at(second)));
    }
    session.opened(None, at(second));
    assert_eq!(session.state(), SetState::Listening);
    session.failed(SetTrouble::Occupied, at(100));
    session.failed(SetTrouble::Occupied, at(280));
    assert!(session.is_occupied_too_long(at(280)));
}

#[test]
fn a_refused_token_is_replaced_once_and_then_the_session() {
    let mut session = listening();
    session.failed(SetTrouble::TokenRefused, at(1));
    assert_eq!(session.next(at(1)), Ok(SetStep::Refresh));
    session.refreshed(None, at(1));
    assert_eq!(session.next(at(1)), Ok(SetStep::Poll(0)));
    session.failed(SetTrouble::TokenRefused, at(1));
    assert_eq!(session.next(at(100)), Ok(SetStep::Open(3)));
    // A token that worked in between is as good as new.
    let mut session = listening();
    for second in 0..5 {
        session.failed(SetTrouble::TokenRefused, at(second));
        session.refreshed(None, at(second));
        session.polled(Polled::Nothing, at(second));
        assert_eq!(session.next(at(second)), Ok(SetStep::Poll(0)));
    }
}

#[test]
fn a_token_is_replaced_before_its_end_and_never_in_a_loop() {
    let life = Duration::from_hours(1);
    let mut session = listening();
    session.refreshed(Some(life), at(0));
    assert_eq!(session.next(at(50 * 60 - 1)), Ok(SetStep::Poll(0)));
    assert_eq!(session.next(at(50 * 60)), Ok(SetStep::Refresh));
    session.refreshed(Some(Duration::ZERO), at(0));
    assert_eq!(session.next(at(299)), Ok(SetStep::Poll(0)));
    assert_eq!(session.next(at(300)), Ok(SetStep::Refresh));
}

#[test]
fn an_evicted_session_is_replaced_in_place() {
    let mut session = listening();
    session.polled(Polled::Recorded(8), at(0));
    session.failed(SetTrouble::TokenRefused, at(0));
    session.failed(SetTrouble::SessionLost, at(0));
    assert_eq!(session.next(at(0)), Ok(SetStep::Open(3)));
    session.opened(None, at(0));
    assert_eq!(
        session.next(at(0)),
        Ok(SetStep::Poll(0)),
        "message 8 comes again"
    );
}

#[test]
fn a_lost_set_is_looked_for_after_two_answers() {
    let mut session = listening();
    session.failed(SetTrouble::SetLost, at(0));
    assert_eq!(session.next(at(2)), Ok(SetStep::Open(3)));
    session.failed(SetTrouble::SetLost, at(2));
    assert_eq!(session.next(at(60)), Ok(SetStep::Find));
    session.found(4);
    session.opened(None, at(60));
    assert_eq!(session.state(), SetState::Listening);
}

#[test]
fn failures_are_repeated_ever_later_and_end_a_session_that_never_works() {
    let mut session = listening();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        session.failed(SetTrouble::Passing(None), at(0));
        pauses.push(session.next(at(0)).unwrap_err().millis() / 1_000);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(session.next(at(60)), Ok(SetStep::Open(3)));
    session.failed(SetTrouble::Passing(Some(Duration::from_secs(90))), at(0));
    assert_eq!(session.next(at(0)), Err(at(90)));
    session.failed(SetTrouble::Refused, at(0));
    assert_eq!(session.next(at(0)), Err(at(300)));
}

#[test]
fn sessions_that_keep_ending_are_opened_ever_later() {
    let mut session = listening();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        session.failed(SetTrouble::SessionLost, at(0));
        pauses.push(session.next(at(0)).map_err(|until| until.millis() / 1_000));
        session.opened(None, at(0));
    }
    let open = SetStep::Open(3);
    assert_eq!(
        pauses,
        [Ok(open), Err(4), Err(8), Err(16), Err(32), Err(60), Err(60)]
    );
    session.failed(SetTrouble::SessionLost, at(3_000));
    assert_eq!(session.next(at(3_000)), Ok(open));
}

#[test]
fn a_poll_is_given_up_for_less_room_or_for_more_room_of_a_full_set() {
    for (told, now, assigned, must) in [
        (4, 3, Some(0), true),
        (4, 4, Some(9), false),
        (4, 5, Some(3), false),
        (4, 5, Some(4), true),
        (0, 5, Some(0), true),
        (4, 5, None, true),
    ] {
        assert_eq!(
            must_announce(told, now, assigned),
            must,
            "{told} {now} {assigned:?}"
        );
    }
}
