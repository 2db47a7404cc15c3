//! Topics byte for byte, and what is told apart.

use alloc::format;

use proptest::prelude::*;

use super::*;

fn thing() -> ThingName {
    ThingName::new("mything").unwrap()
}

fn job() -> JobId {
    JobId::new("AFR_OTA-job1").unwrap()
}

fn stream() -> StreamId {
    StreamId::new("AFR_OTA-stream1").unwrap()
}

#[test]
fn topics_have_exactly_these_bytes() {
    let (thing, job, stream) = (thing(), job(), stream());
    let streams = "$aws/things/mything/streams/AFR_OTA-stream1";
    let rows = [
        (
            next_get(&thing),
            "$aws/things/mything/jobs/$next/get".into(),
        ),
        (
            notify_next(&thing),
            "$aws/things/mything/jobs/notify-next".into(),
        ),
        (
            start_next(&thing),
            "$aws/things/mything/jobs/start-next".into(),
        ),
        (
            describe_job(&thing, &job),
            "$aws/things/mything/jobs/AFR_OTA-job1/get".into(),
        ),
        (
            update(&thing, &job),
            "$aws/things/mything/jobs/AFR_OTA-job1/update".into(),
        ),
        (
            update_accepted(&thing),
            "$aws/things/mything/jobs/+/update/accepted".into(),
        ),
        (
            update_rejected(&thing),
            "$aws/things/mything/jobs/+/update/rejected".into(),
        ),
        (
            stream_data(&thing, &stream, Encoding::Cbor),
            format!("{streams}/data/cbor"),
        ),
        (
            stream_get(&thing, &stream, Encoding::Cbor),
            format!("{streams}/get/cbor"),
        ),
        (
            stream_rejected(&thing, &stream, Encoding::Cbor),
            format!("{streams}/rejected/cbor"),
        ),
        (
            stream_data(&thing, &stream, Encoding::Json),
            format!("{streams}/data/json"),
        ),
        (
            stream_get(&thing, &stream, Encoding::Json),
            format!("{streams}/get/json"),
        ),
        (
            stream_rejected(&thing, &stream, Encoding::Json),
            format!("{streams}/rejected/json"),
        ),
        (
            stream_describe(&thing, &stream, Encoding::Cbor),
            format!("{streams}/describe/cbor"),
        ),
        (
            stream_description(&thing, &stream, Encoding::Cbor),
            format!("{streams}/description/cbor"),
        ),
    ];
    for (topic, expected) in rows {
        assert_eq!(topic, expected);
    }
    for row in OURS.iter().chain(&OTHERS) {
        let same = OURS
            .iter()
            .chain(&OTHERS)
            .filter(|(topic, ..)| *topic == row.0);
        assert_eq!(same.count(), 1, "{row:?}");
    }
}

#[test]
fn every_topic_of_the_own_thing_is_told() {
    let rows = [
        ("jobs/$next/get/accepted", (Topic::NextAccepted, "")),
        ("jobs/$next/get/rejected", (Topic::NextRejected, "")),
        ("jobs/notify-next", (Topic::NotifyNext, "")),
        ("jobs/notify", (Topic::Notify, "")),
        ("jobs/get/accepted", (Topic::PendingAccepted, "")),
        ("jobs/get/rejected", (Topic::PendingRejected, "")),
        ("jobs/start-next/accepted", (Topic::StartNextAccepted, "")),
        ("jobs/start-next/rejected", (Topic::StartNextRejected, "")),
        ("jobs/1234/get/accepted", (Topic::JobAccepted, "1234")),
        ("jobs/1234/get/rejected", (Topic::JobRejected, "1234")),
        ("jobs/1234/update/accepted", (Topic::UpdateAccepted, "1234")),
        ("jobs/1234/update/rejected", (Topic::UpdateRejected, "1234")),
        // Job ids that are words of the service.
        ("jobs/get/get/accepted", (Topic::JobAccepted, "get")),
        (
            "jobs/notify-next/update/rejected",
            (Topic::UpdateRejected, "notify-next"),
        ),
        (
            "streams/s-1/data/cbor",
            (Topic::StreamData(Encoding::Cbor), "s-1"),
        ),
        (
            "streams/s-1/data/json",
            (Topic::StreamData(Encoding::Json), "s-1"),
        ),
        (
            "streams/s-1/rejected/cbor",
            (Topic::StreamRejected(Encoding::Cbor), "s-1"),
        ),
        (
            "streams/s-1/rejected/json",
            (Topic::StreamRejected(Encoding::Json), "s-1"),
        ),
        (
            "streams/s-1/description/cbor",
            (Topic::StreamDescription(Encoding::Cbor), "s-1"),
        ),
    ];
    for (rest, expected) in rows {
        let topic = format!("$aws/things/mything/{rest}");
        assert_eq!(classify(&thing(), &topic), Some(expected), "{topic}");
    }
}

#[test]
fn what_is_not_the_own_things_or_not_complete_is_not_told() {
    let rows = [
        "",
        "$aws/things/",
        "$aws/things/mything",
        "$aws/things/mything/jobs/",
        "$aws/things/mything/jobs/notifyzz",
        "$aws/things/mything/jobs/notify-nextt",
        "$aws/things/mything/jobs/notify-nex",
        "$aws/things/mything/jobs/$next/get",
        "$aws/things/mything/jobs/$next/get/acceptedd",
        "$aws/things/mything/jobs/$next/get/accepte",
        "$aws/things/mything/jobs/$next/update/accepted",
        "$aws/things/mything/jobs/1234/update",
        "$aws/things/mything/jobs/1234/update/accepted/x",
        "$aws/things/mything/jobs//update/accepted",
        "$aws/things/mything/jobs/a:b/update/accepted",
        "$aws/things/mything/streams//data/cbor",
        "$aws/things/mything/streams/s/data/xml",
        "$aws/things/mything/streams/s/get/cbor",
        "$aws/things/mything/streams/s/data",
        "$aws/things/mything/streams/s/data/cbor/x",
        "$aws/things/mythinG/jobs/notify-next",
        "$aws/things/mything2/jobs/notify-next",
        "$aws/things/mythin/jobs/notify-next",
        "$aws/things/other/jobs/notify-next",
        "/$aws/things/mything/jobs/notify-next",
        "aws/things/mything/jobs/notify-next",
    ];
    for topic in rows {
        assert_eq!(classify(&thing(), topic), None, "{topic}");
    }
    let long = format!(
        "$aws/things/mything/jobs/{}/update/accepted",
        "j".repeat(65)
    );
    assert_eq!(classify(&thing(), &long), None);
}

#[test]
fn the_longest_names_make_topics_that_are_told() {
    let thing = ThingName::new(&"t".repeat(128)).unwrap();
    let stream = StreamId::new(&"s".repeat(128)).unwrap();
    let job = JobId::new(&"j".repeat(64)).unwrap();
    let data = stream_data(&thing, &stream, Encoding::Cbor);
    assert_eq!(data.len(), 287);
    assert_eq!(
        classify(&thing, &data),
        Some((Topic::StreamData(Encoding::Cbor), stream.as_str()))
    );
    let accepted = format!("{}/accepted", update(&thing, &job));
    assert_eq!(accepted.len(), 226);
    assert_eq!(
        classify(&thing, &accepted),
        Some((Topic::UpdateAccepted, job.as_str()))
    );
}

proptest! {
    #[test]
    fn any_topic_is_told_or_not(topic in "(\\$aws/things/mything/(jobs|streams)/)?[$a-z/+#-]{0,40}") {
        if let Some((of, name)) = classify(&thing(), &topic) {
            // A name is a legal one, and the topic is the one that is made of both.
            let legal = [NameKind::Stream, NameKind::Job].iter().any(|kind| kind.check(name).is_ok());
            prop_assert!(name.is_empty() || legal);
            prop_assert_eq!(make(&thing(), of, name), topic);
        }
    }
}
