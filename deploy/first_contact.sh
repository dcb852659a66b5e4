#!/usr/bin/env bash
# Tries every call that custseg makes to Google Cloud once, on a project of yours, says what came out otherwise than on the
# fakes of the tests, and removes all that it made. See docs/gcp.md, "First contact".
set -euo pipefail

usage() {
    cat <<'TEXT'
deploy/first_contact.sh --project ID --region REGION [--trainer IMAGE] [--serving IMAGE] [--yes] [--dry-run]

  --trainer IMAGE   of the target trainer, in Artifact Registry; without it nothing is trained on Vertex AI
  --serving IMAGE   of the target serving-gcp; without it nothing is deployed to an endpoint
  --yes             do not ask before money is spent
  --dry-run         print the commands and run none

It needs gcloud, bq, curl, a login (gcloud auth application-default login), and custseg with Google's libraries on the PATH
(make test-gcp, then PATH=$PWD/.venv-gcp/bin:$PATH); and in the project the APIs aiplatform, bigquery, bigquerystorage and storage,
with roles for all of them, BigQuery Read Session User among them.
TEXT
}

project='' region='' trainer='' serving='' is_sure='' dry_run=''
while (($#)); do
    case $1 in
        --project) project=${2:?} && shift 2 ;;
        --region) region=${2:?} && shift 2 ;;
        --trainer) trainer=${2:?} && shift 2 ;;
        --serving) serving=${2:?} && shift 2 ;;
        --yes) is_sure=1 && shift ;;
        --dry-run) dry_run=1 && shift ;;
        --help) usage && exit 0 ;;
        *) echo "unknown: $1" >&2 && usage >&2 && exit 2 ;;
    esac
done
if [[ -z $project || -z $region ]]; then
    usage >&2
    exit 2
fi

cat <<'TEXT'
This costs at most 5 USD, by list prices of us-central1 as published in 2025; nothing that it leaves costs anything:
  storage, requests and queries of a demo shop     under 0.10
  three trainings of at most 20 minutes, n1-standard-4   0.22   (with --trainer)
  one endpoint, two n1-standard-2 for at most two hours  0.44   (with --serving)
An endpoint that cannot be removed costs 0.11 an hour and machine: if the last lines say so, remove it by hand.
TEXT
if [[ -z $is_sure && -z $dry_run ]]; then
    read -r -p "Go on? [y/N] " answer
    [[ $answer == y ]] || exit 1
fi

name="custseg-contact-$(date +%s)"
bucket="$project-$name" dataset=${name//-/_} model="$name"
work=$(mktemp -d)
differed=() endpoint='' is_through=''

# try WORDS COMMAND…: one step; what it says goes to a file, and its last lines are shown if it fails.
try() {
    local words=$1 log
    shift
    if [[ -n $dry_run ]]; then
        echo "would: $words: $*"
        return 0
    fi
    log="$work/$(tr -c '[:alnum:]\n' - <<<"$words").log"
    if "$@" >"$log" 2>&1; then
        echo "as expected: $words"
    else
        echo "DIFFERED: $words (exit code $?); its last lines, the rest is in $log:"
        tail -n 5 "$log" | sed 's/^/    /'
        differed+=("$words")
    fi
}

# says TEXT COMMAND…: whether a command succeeds and says something.
says() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) || { echo "$said" && return 1; }
    echo "$said"
    [[ $said == *"$text"* ]] || { echo "expected it to say: $text" && return 1; }
}

# says_not TEXT COMMAND…: whether a command succeeds without saying something.
says_not() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) || { echo "$said" && return 1; }
    [[ $said != *"$text"* ]] || { echo "$said" && echo "expected it not to say: $text" && return 1; }
}

clean_up() {
    trap '' INT TERM HUP
    set +e
    if [[ -n $endpoint ]]; then
        try "the endpoint is emptied" empty_endpoint
        try "the endpoint is removed" gcloud ai endpoints delete "$endpoint" --project "$project" --region "$region" --quiet
        try "the model is removed" gcloud ai models delete "$model" --project "$project" --region "$region" --quiet
    fi
    try "the data set is removed" bq --project_id "$project" rm -r -f "$dataset"
    try "the bucket is removed" gcloud storage rm --recursive "gs://$bucket" --project "$project"
    echo
    if [[ -z $is_through ]]; then
        differed+=("it was ended before its end")
    fi
    if ((${#differed[@]})); then
        echo "${#differed[@]} came out otherwise than on the fakes; send what is in $work with a report:"
        printf '  %s\n' "${differed[@]}"
        exit 1
    fi
    if [[ -z $dry_run ]]; then
        echo "Everything came out as on the fakes."
    fi
    rm -rf "$work"
}

make_endpoint() {
    endpoint=$(gcloud ai endpoints create --project "$project" --region "$region" --display-name "$name" \
        --format 'value(name)') || { endpoint='' && return 1; }
    endpoint=${endpoint##*/}
}

empty_endpoint() {
    local each
    for each in $(gcloud ai endpoints describe "$endpoint" --project "$project" --region "$region" \
        --format 'value(deployedModels.id)' | tr ';' ' '); do
        gcloud ai endpoints undeploy-model "$endpoint" --project "$project" --region "$region" \
            --deployed-model-id "$each" --quiet
    done
}

follow_the_bucket() {
    local pid status=1
    custseg-serving --home "$work/service" --port 18080 --open --follow "gs://$bucket/home" &
    pid=$!
    for _ in $(seq 60); do
        if curl --silent --fail http://127.0.0.1:18080/readyz; then
            status=0
            break
        fi
        kill -0 "$pid" || break
        sleep 1
    done
    kill "$pid"
    wait "$pid" || true
    return "$status"
}

write_settings() {
    cat >"$work/custseg.toml" <<TEXT
[landing]
settle_seconds = 0
[gcp]
project = "$project"
location = "$region"
bucket = "$bucket"
[gcp.storage]
uri = "gs://$bucket/home"
tables = true
[gcp.bigquery]
dataset = "$dataset"
TEXT
    if [[ -n $trainer ]]; then
        printf '[gcp.training]\nimage = "%s"\ntimeout_minutes = 20\n' "$trainer" >>"$work/custseg.toml"
    fi
    if [[ -n $serving ]]; then
        printf '[gcp.serving]\nimage = "%s"\nmodel_id = "%s"\nendpoint = "%s"\n' "$serving" "$model" "$endpoint" \
            >>"$work/custseg.toml"
    fi
    # The same for a home without a bucket, whose source is a table.
    printf '[gcp]\nproject = "%s"\n' "$project" >"$work/source.toml"
}

trap clean_up EXIT
trap 'exit 1' INT TERM HUP
export CUSTSEG_HOME="$work/home"

try "a bucket is made" gcloud storage buckets create "gs://$bucket" --project "$project" --location "$region"
try "a data set is made" bq --project_id "$project" --location "$region" mk --dataset "$dataset"
if [[ -n $serving ]]; then
    try "an endpoint is made" make_endpoint
    if [[ -n $dry_run ]]; then
        endpoint='dry-run'
    fi
    # Without one there is nothing to deploy to.
    serving=${endpoint:+$serving}
fi
write_settings

config=(--config "$work/custseg.toml")
try "tables and releases in the bucket, snapshots in BigQuery" \
    custseg run --source demo "${config[@]}"
try "a second run finds nothing to do" says "Nothing has changed" custseg run "${config[@]}"
try "status reads the tables" custseg status "${config[@]}"
try "a table is read from the bucket" custseg export clean_transactions --out "$work/orders.parquet" "${config[@]}"
try "views show the newest snapshot" says "there are segments" \
    bq --project_id "$project" query --use_legacy_sql=false \
    "SELECT IF(COUNT(*) > 1, 'there are segments', 'there are none') AS said FROM $dataset.current_segments"
try "a home without its record publishes everything again" rm -f "$work/home/bigquery.json"
try "the same" custseg run "${config[@]}"
try "a service follows the bucket and becomes ready" follow_the_bucket
if [[ -n $trainer ]]; then
    try "a challenger is trained on Vertex AI" custseg retrain "${config[@]}"
fi
if [[ -n $serving ]]; then
    try "a release becomes a model version and is deployed" says "100 %" custseg vertex canary "${config[@]}"
    try "the same again deploys nothing" says "100 %" custseg vertex canary "${config[@]}"
    try "it has all traffic and the alias" says "100 %" custseg vertex full "${config[@]}"
    try "status names it" says "models/$model@1" custseg vertex status "${config[@]}"
fi
try "a file of lines becomes a table" \
    bq --project_id "$project" load --source_format PARQUET "$dataset.orders" "$work/orders.parquet"
export CUSTSEG_HOME="$work/from-bigquery"
# The demo has more lines than come over REST.
try "a table of BigQuery is a source, through the Storage Read API" says_not "come over REST" \
    custseg run --source "bq://$project.$dataset.orders" --config "$work/source.toml"
is_through=1
