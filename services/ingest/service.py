"""The ingest service: zones and files, and which files a run reads."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from contracts.landing import (
    AddressFile,
    AddressSample,
    AddressUpload,
    BucketChanged,
    ChangeZone,
    CheckFiles,
    ClaimedFiles,
    ClaimFiles,
    CreateZone,
    DownloadAddress,
    FileLanded,
    FileProcessed,
    FilesChecked,
    FindFile,
    FindZone,
    LandingFile,
    LandingFiles,
    ListFiles,
    ListSamples,
    ListZones,
    RecordUpload,
    RejectFile,
    RemoveFile,
    RemoveSample,
    RemoveZone,
    RetryFile,
    Samples,
    UploadAddress,
    Zone,
    Zones,
)
from contracts.namespaces import FindNamespace
from contracts.pipelines import NamespaceRemoved, PipelinePublished, PipelineRemoved
from contracts.runs import FindRunOutcome, RunFinished
from services.ingest import archive, arrivals, claims, files, keys, samples, sweep, uploads, zones
from services.ingest.store import archive as readers
from services.ingest.store import zones as zone_store
from shared.background import background, every
from shared.batches import Batches
from shared.bus import Bus, connect
from shared.database import database, transaction
from shared.leases import Taker
from shared.object_store import ObjectStore, object_store
from shared.outbox import relay
from shared.settings import Settings

PATIENCE: Final = timedelta(minutes=1)

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


@dataclass(frozen=True, repr=False)
class Ingest:
    """Keeps the record of what lies in landing zones, and of who has read it."""

    db: asyncpg.Pool
    objects: ObjectStore
    bus: Bus
    settings: Settings
    started_at: datetime
    """By the database's clock."""
    patience: timedelta = PATIENCE
    """After how long catalog is asked about a run that holds files."""
    must_sweep: asyncio.Event = field(default_factory=asyncio.Event)
    must_tidy: asyncio.Event = field(default_factory=asyncio.Event)

    # What is heard

    async def record_changes(self, events: Sequence[BucketChanged]) -> None:
        """Put files on record that were put into a zone, or removed from it, with any S3 client."""
        news = [told for event in events for told in keys.told(event, self.settings.s3_bucket)]
        await arrivals.record(self.db, self.objects, self.settings.s3_bucket, news)

    async def settle_run(self, event: RunFinished) -> None:
        """Note what a run has read, or release it; have it archived where its pipeline asks for that."""
        had_files = await claims.settle(
            self.db,
            run_id=event.run_id,
            pipeline_id=event.pipeline_id,
            pipeline=event.pipeline,
            status=event.status,
            dry_run=event.dry_run,
        )
        if had_files:
            self.must_tidy.set()

    async def note_readers(self, event: PipelinePublished) -> None:
        """Note which zones a published pipeline reads, and whether it wants what it read archived."""
        async with transaction(self.db) as connection:
            if await readers.publish(connection, event):
                zones_read = [(zone.namespace, zone.zone) for zone in event.reads_zones]
                await readers.set_readers(connection, event.pipeline_id, zones_read)
        self.must_tidy.set()

    async def forget_reader(self, event: PipelineRemoved) -> None:
        """Wait no longer for a pipeline that was deleted before archiving what others have read."""
        async with transaction(self.db) as connection:
            await readers.remove_pipeline(connection, event.pipeline_id, event.pipeline)
        self.must_tidy.set()

    async def remove_zones(self, event: NamespaceRemoved) -> None:
        """Remove the zones of a namespace that was deleted, and none that was made in the next one of its name."""
        await zones.remove_all(self.db, event)
        self.must_tidy.set()

    # What is asked about zones

    async def list_zones(self, query: ListZones) -> Zones:
        """List landing zones with the count of their files."""
        return await zones.page(self.db, query)

    async def create_zone(self, query: CreateZone) -> Zone:
        """Make a zone in a namespace that exists; what lies there already lands."""
        namespace = await self.bus.ask(FindNamespace(name=query.namespace))
        zone = await zones.create(self.db, query, namespace.id)
        self.must_sweep.set()
        return zone

    async def find_zone(self, query: FindZone) -> Zone:
        """Show one zone."""
        return await zones.show(self.db, query.namespace, query.name)

    async def change_zone(self, query: ChangeZone) -> Zone:
        """Change what is said about a zone."""
        return await zones.change(self.db, query)

    async def remove_zone(self, query: RemoveZone) -> None:
        """Delete a zone and its files."""
        await zones.remove(self.db, query.namespace, query.name)
        self.must_tidy.set()

    # What is asked about files

    async def list_files(self, query: ListFiles) -> LandingFiles:
        """List the files of a zone."""
        return await files.page(self.db, query)

    async def find_file(self, query: FindFile) -> LandingFile:
        """Show one file."""
        return await files.show(self.db, query.namespace, query.zone, query.file_id)

    async def remove_file(self, query: RemoveFile) -> None:
        """Take a file out of its zone at once, and out of the store when no run reads it."""
        await files.remove(self.db, query)
        self.must_tidy.set()

    async def reject_file(self, query: RejectFile) -> LandingFile:
        """Keep a file from being read."""
        return await files.reject(self.db, query)

    async def retry_file(self, query: RetryFile) -> LandingFile:
        """Look at a rejected file again."""
        return await files.retry(self.db, query)

    async def address_upload(self, query: AddressUpload) -> UploadAddress:
        """Say where a file of this name can be put."""
        return await uploads.address(self.db, self.objects, query)

    async def record_upload(self, query: RecordUpload) -> LandingFile:
        """Put a file on record that was uploaded through the API."""
        return await uploads.record(self.db, self.objects, self.settings.s3_bucket, query)

    async def address_file(self, query: AddressFile) -> DownloadAddress:
        """Say where the content of a file can be read."""
        return await uploads.address_content(self.db, self.objects, query)

    async def list_samples(self, query: ListSamples) -> Samples:
        """List the samples of a zone."""
        await zones.find(self.db, query.namespace, query.zone)
        return await samples.page(self.objects, query)

    async def address_sample(self, query: AddressSample) -> UploadAddress:
        """Say where a sample of this name can be put."""
        return await uploads.address_sample(self.db, self.objects, query)

    async def remove_sample(self, query: RemoveSample) -> None:
        """Delete a sample."""
        await zones.find(self.db, query.namespace, query.zone)
        await samples.remove(self.objects, query.namespace, query.zone, query.filename)

    # What runs ask

    async def claim_files(self, query: ClaimFiles) -> ClaimedFiles:
        """Say which files of a zone a run reads, the same to every attempt."""
        return await claims.claim(self.db, query)

    async def check_files(self, query: CheckFiles) -> FilesChecked:
        """Say whether what a run read is what it claimed, and let its claims follow what has changed."""
        return await claims.check(self.db, self.objects, self.settings.s3_bucket, query)

    # What is done by itself

    async def keep_sweeping(self) -> None:
        """Find what no notification told of: at once, as nobody may have listened before, then now and then."""
        # Begun again after a zone could not be swept, this leaves out those that were swept since the start.
        await sweep.sweep_zones(self.db, self.objects, self.settings.s3_bucket, self.started_at)
        pause = min(self.settings.sweep_interval_seconds, self.settings.tick_interval_seconds)
        await every(pause, self.sweep, wake=self.must_sweep)

    async def sweep(self) -> None:
        """Sweep the zones whose turn it is."""
        before = await zone_store.now(self.db) - timedelta(seconds=self.settings.sweep_interval_seconds)
        await sweep.sweep_zones(self.db, self.objects, self.settings.s3_bucket, before)

    async def tidy(self) -> None:
        """Archive what was read, and delete from the store what was deleted."""
        await archive.archive_read_files(self.db, self.objects)
        await archive.delete_from_store(self.db, self.objects)

    async def ask_about_unsettled(self) -> None:
        """Ask catalog about runs that hold files and of whose end nothing was heard."""
        await claims.settle_forgotten(self.db, self.bus, self.patience)


def wire(bus: Bus, ingest: Ingest) -> Taker:
    """Declare what the service hears, says, asks and answers; the changes of the bucket are taken by the caller."""
    bus.say(FileLanded, FileProcessed)
    bus.asks(FindNamespace, FindRunOutcome)
    bus.hear(RunFinished, ingest.settle_run)
    bus.hear(PipelinePublished, ingest.note_readers)
    bus.hear(PipelineRemoved, ingest.forget_reader)
    bus.hear(NamespaceRemoved, ingest.remove_zones)
    bus.answer(ListZones, ingest.list_zones)
    bus.answer(CreateZone, ingest.create_zone)
    bus.answer(FindZone, ingest.find_zone)
    bus.answer(ChangeZone, ingest.change_zone)
    bus.answer(RemoveZone, ingest.remove_zone)
    bus.answer(ListFiles, ingest.list_files)
    bus.answer(FindFile, ingest.find_file)
    bus.answer(RemoveFile, ingest.remove_file)
    bus.answer(RejectFile, ingest.reject_file)
    bus.answer(RetryFile, ingest.retry_file)
    bus.answer(AddressUpload, ingest.address_upload)
    bus.answer(RecordUpload, ingest.record_upload)
    bus.answer(AddressFile, ingest.address_file)
    bus.answer(ListSamples, ingest.list_samples)
    bus.answer(AddressSample, ingest.address_sample)
    bus.answer(RemoveSample, ingest.remove_sample)
    bus.answer(ClaimFiles, ingest.claim_files)
    bus.answer(CheckFiles, ingest.check_files)
    return bus.take(BucketChanged)


@asynccontextmanager
async def serve(settings: Settings, *, patience: timedelta = PATIENCE) -> AsyncIterator[None]:
    """Run the ingest service until the block is left."""
    bus = connect(settings, "ingest")
    async with database(settings, "ingest", _MIGRATIONS) as db, object_store(settings, "ingest") as objects:
        ingest = Ingest(db, objects, bus, settings, await zone_store.now(db), patience)
        taker = wire(bus, ingest)
        bus.check("object_store", lambda: objects.reach(keys.zone_prefix("default", "any")))
        # Notifications may have found no NATS to be published to.
        bus.on_reconnect.append(ingest.must_sweep.set)
        changes = Batches(bus, BucketChanged, ingest.record_changes, lease_seconds=settings.run_lease_seconds)
        tick = settings.tick_interval_seconds
        async with (
            bus.running(),
            relay(db, bus),
            background(
                lambda: changes.run(taker),
                ingest.keep_sweeping,
                lambda: every(tick, ingest.tidy, wake=ingest.must_tidy),
                lambda: every(min(tick, patience.total_seconds()), ingest.ask_about_unsettled),
            ),
        ):
            yield
